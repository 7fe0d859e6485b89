/* SPDX-License-Identifier: MIT */
#include "tree/grouping.h"

#include "base/error.h"
#include "tree/leftover_name.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct candidate *discovery_add_candidate(struct discovery *discovery, const struct candidate *like)
{
    if (discovery->candidate_count == discovery->candidate_capacity) {
        uint32_t capacity =
            discovery->candidate_capacity == 0 ? 16 : discovery->candidate_capacity * 2;
        struct candidate **grown = realloc(discovery->candidates, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        discovery->candidates = grown;
        discovery->candidate_capacity = capacity;
    }
    struct candidate *candidate = malloc(sizeof *candidate);
    if (candidate == NULL)
        return NULL;
    *candidate = *like;
    discovery->candidates[discovery->candidate_count++] = candidate;
    candidate->index_arena.budget = &discovery->budget;
    return candidate;
}

void candidate_free(struct candidate *candidate)
{
    arena_free(&candidate->index_arena);
    free(candidate->absent);
    free(candidate->replaced);
    free(candidate->prefixes);
    notes_free(&candidate->notes);
    free(candidate);
}

struct candidate *candidate_of_file(struct discovery *discovery, uint32_t directory,
                                    const struct weight_file *file)
{
    struct candidate like = {.directory = directory,
                             .stem = file->stem,
                             .variant = file->variant,
                             .base = file->base,
                             .extension = file->extension,
                             .merged_name = file->merged_name,
                             .format = file->format,
                             .perhaps = file->claim == FORMAT_CLAIM_PERHAPS,
                             .index_entry = SCAN_NONE,
                             .beside = SCAN_NONE};
    return discovery_add_candidate(discovery, &like);
}

int candidate_reserve(struct discovery *discovery, struct candidate *candidate, size_t count)
{
    candidate->members =
        arena_alloc_array(&discovery->checkpoint->arena, count, sizeof *candidate->members);
    return candidate->members == NULL ? -ENOMEM : 0;
}

void candidate_add_member(struct discovery *discovery, struct candidate *candidate, uint32_t entry)
{
    candidate->members[candidate->member_count++] = entry;
    entry_of(discovery, entry)->shared = entry_of(discovery, entry)->claimed;
    entry_of(discovery, entry)->claimed = true;
}

void candidate_fail(struct candidate *candidate, const struct unshard_error *error)
{
    if (candidate->failed)
        return;
    candidate->failed = true;
    candidate->error = *error;
}

/* `result` of discovery_read_file says why, or index_arena, that there is no memory left for it. */
static void fail_to_read(struct candidate *candidate, const char *path, int result, uint64_t limit)
{
    char reason[64];
    struct unshard_error error;
    if (candidate->index_arena.refused)
        headers_no_memory_left(&error, path, EFBIG);
    else
        error_set(&error, "unreadable", -result, "%s: cannot read: %s", path,
                  discovery_why_unread(result, limit, reason));
    candidate_fail(candidate, &error);
}

int candidate_read(struct discovery *discovery, struct candidate *candidate, uint32_t number,
                   uint64_t limit, candidate_parse parse)
{
    const struct scan_entry *entry = entry_of(discovery, number);
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    char *bytes = NULL;
    size_t length = 0;
    if (entry->kind != SCAN_FILE) {
        candidate_fail(candidate, entry->problem);
        return -EINVAL;
    }
    bool charged = arena_charge(&candidate->index_arena, entry->size);
    int result = charged ? discovery_take_file(discovery, number, limit, &bytes, &length) : -ENOMEM;
    if (result == 0) {
        result = parse(candidate, entry, bytes, length, &error);
        if (result != 0 && result != -ENOMEM)
            candidate_fail(candidate, &error);
    }
    free(bytes);
    if (charged)
        arena_discharge(&candidate->index_arena, entry->size);
    if (result != 0 && !candidate->failed)
        fail_to_read(candidate, entry->path, result, limit);
    return result;
}

bool candidate_may_add_absent(const struct discovery *discovery, const struct candidate *candidate)
{
    return !candidate->failed ||
           (candidate->absent_count < MAX_ABSENT && discovery->absent_count < MAX_ABSENT_IN_ALL);
}

int candidate_add_absent(struct discovery *discovery, struct candidate *candidate, const char *path,
                         const struct unshard_error *error)
{
    struct arena *arena = &discovery->checkpoint->arena;
    candidate_fail(candidate, error);
    candidate->absent_seen++;
    if (!candidate_may_add_absent(discovery, candidate))
        return 0;
    const char *kept = arena_copy_string(arena, path, strlen(path));
    struct unshard_error *why = arena_alloc(arena, sizeof *why);
    struct absent_shard *grown =
        reallocarray(candidate->absent, candidate->absent_count + 1U, sizeof *grown);
    if (grown != NULL)
        candidate->absent = grown;
    if (kept == NULL || why == NULL || grown == NULL)
        return -ENOMEM;
    *why = *error;
    grown[candidate->absent_count++] =
        (struct absent_shard){.path = kept, .file = SCAN_NONE, .error = why};
    discovery->absent_count++;
    return 0;
}

const char *scan_unfinished(struct discovery *discovery, uint32_t directory, const char *name,
                            char *out, size_t capacity)
{
    char other[PATH_MAX];
    out[0] = '\0';
    for (const char *const *ending = leftover_of_download; *ending != NULL; ending++)
        if (snprintf(other, sizeof other, "%s%s", name, *ending) < (int)sizeof other &&
            scan_find(&discovery->scan, directory, other) != SCAN_NONE)
            snprintf(out, capacity, "; its download has not come to its end: there is %s", other);
    return out;
}

int candidate_replaces(struct candidate *candidate, uint32_t entry)
{
    uint32_t *grown =
        reallocarray(candidate->replaced, candidate->replaced_count + 1U, sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    candidate->replaced = grown;
    grown[candidate->replaced_count++] = entry;
    return 0;
}

char *scan_path_in(const struct discovery *discovery, uint32_t directory, const char *name)
{
    const char *parent = discovery->scan.entries[directory].path;
    struct text path = {0};
    text_printf(&path, "%s%s%s", parent, parent[0] != '\0' ? "/" : "", name);
    return text_take(&path);
}

int candidate_use_complete_file(struct discovery *discovery, struct candidate *candidate,
                                uint32_t entry)
{
    if (candidate->failed)
        note_add(&candidate->notes, &discovery->checkpoint->arena, "%s.", candidate->error.message);
    candidate->passthrough = true;
    candidate->failed = false;
    candidate->member_count = 0;
    if (candidate_reserve(discovery, candidate, 1) != 0)
        return -ENOMEM;
    candidate_add_member(discovery, candidate, entry);
    return 0;
}

static bool is_member(const struct candidate *candidate, uint32_t entry)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (candidate->members[i] == entry)
            return true;
    return false;
}

int candidate_settle_merged_name(struct discovery *discovery, struct candidate *candidate)
{
    uint32_t entry = scan_child(&discovery->scan, candidate->directory, candidate->merged_name,
                                strlen(candidate->merged_name));
    if (entry == SCAN_NONE || candidate->passthrough || candidate->format->shown_as != NULL)
        return 0;
    switch (entry_of(discovery, entry)->kind) {
    case SCAN_FILE:
        if (candidate->member_count == 1 && is_member(candidate, entry))
            return candidate_use_complete_file(discovery, candidate, entry);
        candidate->beside = entry;
        return 0;
    case SCAN_DIRECTORY:
        candidate->beside = entry;
        return 0;
    default:
        return candidate_replaces(candidate, entry);
    }
}
