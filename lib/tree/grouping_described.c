/* SPDX-License-Identifier: MIT
 *
 * Directories whose files one of them names (torch.distributed.checkpoint: .metadata, and the
 * .distcp files). */
#include "tree/grouping.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_member_file(const struct scan_entry *entry, const struct set_description *rule)
{
    const char *dot = strrchr(entry->name, '.');
    return entry->kind != SCAN_DIRECTORY && !entry->set_aside && dot != NULL &&
           strcmp(dot + 1, rule->member_extension) == 0;
}

/* A first one of the directory, or SCAN_NONE. */
static uint32_t first_member_file(struct discovery *discovery, uint32_t directory,
                                  const struct set_description *rule)
{
    const struct scan_entry *parent = entry_of(discovery, directory);
    for (uint32_t i = 0; i < parent->child_count; i++)
        if (is_member_file(entry_of(discovery, parent->first_child + i), rule))
            return parent->first_child + i;
    return SCAN_NONE;
}

static int parse(struct candidate *candidate, const struct scan_entry *entry, const char *bytes,
                 size_t length, struct unshard_error *error)
{
    struct described_set *set = arena_alloc(&candidate->index_arena, sizeof *set);
    if (set == NULL)
        return -ENOMEM;
    int result = candidate->format->described->parse(bytes, length, entry->path,
                                                     &candidate->index_arena, set, error);
    if (result == 0)
        candidate->described = set;
    return result;
}

static void claim(struct discovery *discovery, struct candidate *candidate, uint32_t number)
{
    candidate->members[candidate->member_count++] = number;
    entry_of(discovery, number)->claimed = true;
}

/* Where the description cannot be used the files in the directory are taken for its own. */
static int claim_all(struct discovery *discovery, struct candidate *candidate)
{
    const struct scan_entry *parent = entry_of(discovery, candidate->directory);
    if (candidate_reserve(discovery, candidate, parent->child_count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < parent->child_count; i++) {
        const struct scan_entry *entry = entry_of(discovery, parent->first_child + i);
        if (is_member_file(entry, candidate->format->described) && entry->kind == SCAN_FILE)
            claim(discovery, candidate, parent->first_child + i);
    }
    return 0;
}

static int add_absent(struct discovery *discovery, struct candidate *candidate, const char *name,
                      uint32_t found)
{
    const char *by = entry_of(discovery, candidate->description)->path;
    struct unshard_error error;
    if (found == SCAN_NONE)
        error_set(&error, "missing", ENOENT, "%s names %s, which is missing", by, name);
    else if (entry_of(discovery, found)->kind == SCAN_DIRECTORY)
        error_set(&error, "not-regular", EISDIR, "%s names %s, which is a directory", by, name);
    else
        error = *entry_of(discovery, found)->problem;
    char *path = scan_path_in(discovery, candidate->directory, name);
    int result = path != NULL ? candidate_add_absent(discovery, candidate, path, &error) : -ENOMEM;
    free(path);
    return result;
}

/* Members are in the order of described->files, unless one is absent; then nothing is read. */
static int claim_named(struct discovery *discovery, struct candidate *candidate)
{
    const struct described_set *set = candidate->described;
    if (candidate_reserve(discovery, candidate, set->file_count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < set->file_count; i++) {
        uint32_t found = scan_find(&discovery->scan, candidate->directory, set->files[i]);
        int result = 0;
        if (found != SCAN_NONE && entry_of(discovery, found)->kind == SCAN_FILE)
            claim(discovery, candidate, found);
        else
            result = add_absent(discovery, candidate, set->files[i], found);
        if (result != 0)
            return result;
    }
    return 0;
}

static int group(struct discovery *discovery, struct candidate *candidate)
{
    const struct set_description *rule = candidate->format->described;
    if (candidate_read(discovery, candidate, candidate->description, rule->max_bytes, parse) != 0) {
        arena_free(&candidate->index_arena);
        return claim_all(discovery, candidate);
    }
    if (candidate->described->left_out > 0)
        note_add(&candidate->notes, &discovery->checkpoint->arena,
                 "%s: %zu entries that are no tensors are left out.",
                 entry_of(discovery, candidate->description)->path, candidate->described->left_out);
    return claim_named(discovery, candidate);
}

/* The name of the file that is shown for such a set; NULL without memory. */
static const char *shown_name(struct discovery *discovery, const struct format *format)
{
    struct text text = {0};
    text_printf(&text, "%s.%s", format->described->shown_stem, format_shown(format)->extensions[0]);
    const char *name =
        text.failed ? NULL
                    : arena_copy_string(&discovery->checkpoint->arena, text.data, text.length);
    text_free(&text);
    return name;
}

static bool is_taken(struct discovery *discovery, uint32_t directory,
                     const struct directory_weights *weights, const char *name)
{
    uint32_t other;
    return string_map_find(weights->merged, name, strlen(name), &other) ||
           scan_child(&discovery->scan, directory, name, strlen(name)) != SCAN_NONE;
}

int grouping_find_described(struct discovery *discovery, uint32_t directory,
                            const struct format *format, const struct directory_weights *weights)
{
    const struct set_description *rule = format->described;
    struct arena *arena = &discovery->checkpoint->arena;
    uint32_t member = first_member_file(discovery, directory, rule);
    if (member == SCAN_NONE)
        return 0;
    uint32_t description = scan_child(&discovery->scan, directory, rule->name, strlen(rule->name));
    const char *path = entry_of(discovery, member)->path;
    const char *name = shown_name(discovery, format);
    if (name == NULL)
        return -ENOMEM;
    if (description == SCAN_NONE || entry_of(discovery, description)->kind == SCAN_DIRECTORY) {
        note_add(&discovery->notes, arena,
                 "%s: there is no %s beside it, so %s; its files are shown as they are.", path,
                 rule->name, rule->unfinished);
        return 0;
    }
    if (is_taken(discovery, directory, weights, name)) {
        note_add(&discovery->notes, arena, "%s: %s is there already; the %s is shown as it is.",
                 path, name, rule->called);
        return 0;
    }
    struct candidate like = {.directory = directory,
                             .stem = rule->shown_stem,
                             .variant = "",
                             .base = rule->shown_stem,
                             .extension = format_shown(format)->extensions[0],
                             .merged_name = name,
                             .format = format,
                             .description = description,
                             .index_entry = SCAN_NONE,
                             .beside = SCAN_NONE};
    struct candidate *candidate = discovery_add_candidate(discovery, &like);
    return candidate != NULL ? group(discovery, candidate) : -ENOMEM;
}
