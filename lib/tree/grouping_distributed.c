/* SPDX-License-Identifier: MIT
 *
 * Directories of torch.distributed.checkpoint: .metadata, and the .distcp files that it names. */
#include "tree/grouping.h"

#include "base/error.h"
#include "formats/torch/pickle_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_part_file(const struct scan_entry *entry)
{
    const char *dot = strrchr(entry->name, '.');
    return entry->kind != SCAN_DIRECTORY && !entry->set_aside && dot != NULL &&
           strcmp(dot, ".distcp") == 0;
}

/* A first .distcp file of the directory, or SCAN_NONE. */
static uint32_t first_part_file(struct discovery *discovery, uint32_t directory)
{
    const struct scan_entry *parent = entry_of(discovery, directory);
    for (uint32_t i = 0; i < parent->child_count; i++)
        if (is_part_file(entry_of(discovery, parent->first_child + i)))
            return parent->first_child + i;
    return SCAN_NONE;
}

static void read_metadata(struct discovery *discovery, struct candidate *candidate, uint32_t number)
{
    const struct scan_entry *entry = entry_of(discovery, number);
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    char *bytes = NULL;
    size_t length = 0;
    if (entry->kind != SCAN_FILE) {
        candidate_fail(candidate, entry->problem);
        return;
    }
    bool charged = arena_charge(&candidate->index_arena, entry->size);
    int result = charged ? discovery_take_file(discovery, number, PICKLE_MAX_BYTES, &bytes, &length)
                         : -ENOMEM;
    if (result == 0)
        candidate->dcp = arena_alloc(&candidate->index_arena, sizeof *candidate->dcp);
    if (candidate->dcp != NULL) {
        result = dcp_metadata_parse(bytes, length, entry->path, &candidate->index_arena,
                                    candidate->dcp, &error);
        if (result != 0 && result != -ENOMEM)
            candidate_fail(candidate, &error);
    }
    free(bytes);
    if (charged)
        arena_discharge(&candidate->index_arena, entry->size);
    if (result == 0 && candidate->dcp != NULL)
        return;
    if (!candidate->failed)
        candidate_fail_to_read(candidate, entry->path, result != 0 ? result : -ENOMEM,
                               PICKLE_MAX_BYTES);
    candidate->dcp = NULL;
    arena_free(&candidate->index_arena);
}

static void claim(struct discovery *discovery, struct candidate *candidate, uint32_t number)
{
    struct scan_entry *entry = entry_of(discovery, number);
    candidate->members[candidate->member_count++] = number;
    entry->claimed = true;
}

/* Of metadata that cannot be used the files in the directory are taken for its own. */
static int claim_all(struct discovery *discovery, struct candidate *candidate)
{
    const struct scan_entry *parent = entry_of(discovery, candidate->directory);
    candidate->members = arena_alloc_array(&discovery->checkpoint->arena, parent->child_count,
                                           sizeof *candidate->members);
    if (candidate->members == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < parent->child_count; i++) {
        const struct scan_entry *entry = entry_of(discovery, parent->first_child + i);
        if (is_part_file(entry) && entry->kind == SCAN_FILE)
            claim(discovery, candidate, parent->first_child + i);
    }
    return 0;
}

static int add_absent(struct discovery *discovery, struct candidate *candidate,
                      const char *metadata_path, const char *name, uint32_t found)
{
    const char *directory = entry_of(discovery, candidate->directory)->path;
    struct unshard_error error;
    struct text path = {0};
    if (found == SCAN_NONE)
        error_set(&error, "missing", ENOENT, "%s names %s, which is missing", metadata_path, name);
    else if (entry_of(discovery, found)->kind == SCAN_DIRECTORY)
        error_set(&error, "not-regular", EISDIR, "%s names %s, which is a directory", metadata_path,
                  name);
    else
        error = *entry_of(discovery, found)->problem;
    text_printf(&path, "%s%s%s", directory, directory[0] != '\0' ? "/" : "", name);
    int result =
        path.failed ? -ENOMEM : candidate_add_absent(discovery, candidate, path.data, &error);
    text_free(&path);
    return result;
}

/* Members are in the order of dcp->files, unless one is absent; then nothing is read. */
static int claim_named(struct discovery *discovery, struct candidate *candidate,
                       const char *metadata_path)
{
    const struct dcp_metadata *metadata = candidate->dcp;
    candidate->members = arena_alloc_array(&discovery->checkpoint->arena, metadata->file_count,
                                           sizeof *candidate->members);
    if (candidate->members == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < metadata->file_count; i++) {
        uint32_t found = scan_find(&discovery->scan, candidate->directory, metadata->files[i]);
        if (found != SCAN_NONE && entry_of(discovery, found)->kind == SCAN_FILE) {
            claim(discovery, candidate, found);
        } else {
            int result = add_absent(discovery, candidate, metadata_path, metadata->files[i], found);
            if (result != 0)
                return result;
        }
    }
    return 0;
}

static int group(struct discovery *discovery, uint32_t directory, uint32_t metadata)
{
    static const char stem[] = "model", extension[] = "safetensors";
    struct scan_entry *entry = entry_of(discovery, metadata);
    struct candidate like = {.directory = directory,
                             .stem = stem,
                             .variant = "",
                             .base = stem,
                             .extension = extension,
                             .merged_name = DISTRIBUTED_NAME,
                             .format = format_of_name("dcp"),
                             .index_entry = SCAN_NONE,
                             .beside = SCAN_NONE};
    struct candidate *candidate = discovery_add_candidate(discovery, &like);
    if (candidate == NULL)
        return -ENOMEM;
    read_metadata(discovery, candidate, metadata);
    if (candidate->dcp != NULL && candidate->dcp->other_count > 0)
        note_add(&candidate->notes, &discovery->checkpoint->arena,
                 "%s: %zu entries that are no tensors are left out.", entry->path,
                 candidate->dcp->other_count);
    return candidate->dcp != NULL ? claim_named(discovery, candidate, entry->path)
                                  : claim_all(discovery, candidate);
}

int grouping_find_distributed(struct discovery *discovery, uint32_t directory, bool taken)
{
    static const char name[] = ".metadata";
    struct arena *arena = &discovery->checkpoint->arena;
    uint32_t part = first_part_file(discovery, directory);
    uint32_t metadata = scan_child(&discovery->scan, directory, name, sizeof name - 1);
    if (part == SCAN_NONE)
        return 0;
    const char *path = entry_of(discovery, part)->path;
    taken = taken || scan_child(&discovery->scan, directory, DISTRIBUTED_NAME,
                                sizeof DISTRIBUTED_NAME - 1) != SCAN_NONE;
    if (metadata == SCAN_NONE || entry_of(discovery, metadata)->kind == SCAN_DIRECTORY)
        note_add(&discovery->notes, arena,
                 "%s: there is no .metadata beside it, so the distributed save did not end; its "
                 "files are shown as they are.",
                 path);
    else if (taken)
        note_add(&discovery->notes, arena,
                 "%s: %s is there already; the distributed checkpoint is shown as it is.", path,
                 DISTRIBUTED_NAME);
    else
        return group(discovery, directory, metadata);
    return 0;
}
