/* SPDX-License-Identifier: MIT
 *
 * Components that an index names.
 */
#include "tree/grouping.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Takes a name of the index as a member, or notes why it cannot be one. */
static int claim_name(struct discovery *discovery, struct candidate *candidate, const char *name)
{
    const char *index_path = entry_of(discovery, candidate->index_entry)->path;
    uint32_t found = scan_find(&discovery->scan, candidate->directory, name);
    char unfinished[256];
    struct unshard_error error;
    if (found == SCAN_NONE) {
        candidate->missing++;
        error_set(
            &error, "missing", ENOENT, "%s: weight_map names %s, which is missing%s", index_path,
            name,
            scan_unfinished(discovery, candidate->directory, name, unfinished, sizeof unfinished));
        candidate->unfinished = candidate->unfinished || unfinished[0] != '\0';
    } else if (entry_of(discovery, found)->kind == SCAN_FILE) {
        candidate_add_member(discovery, candidate, found);
        return 0;
    } else if (entry_of(discovery, found)->kind == SCAN_DIRECTORY) {
        error_set(&error, "not-regular", EISDIR, "%s: weight_map names %s, which is a directory",
                  index_path, name);
    } else {
        error = *entry_of(discovery, found)->problem;
        if (candidate_replaces(candidate, found) != 0)
            return -ENOMEM;
    }
    char *path = scan_path_in(discovery, candidate->directory, name);
    int result = path != NULL ? candidate_add_absent(discovery, candidate, path, &error) : -ENOMEM;
    free(path);
    return result;
}

static int compare_member_paths(const void *a, const void *b, void *context)
{
    const struct scan_entry *entries = context;
    return strcmp(entries[*(const uint32_t *)a].path, entries[*(const uint32_t *)b].path);
}

/* Claims what the index names, in the order of names: the index lists them by tensor. A name that
 * leads to no usable file makes the component failed. */
static int claim_named_shards(struct discovery *discovery, struct candidate *candidate)
{
    const struct index_file *index = &candidate->index;
    const char *index_path = entry_of(discovery, candidate->index_entry)->path;
    struct unshard_error error;
    if (candidate_reserve(discovery, candidate, index->file_count) != 0)
        return -ENOMEM;
    for (size_t i = 0; i < index->file_count; i++) {
        if (claim_name(discovery, candidate, index->files[i]) != 0)
            return -ENOMEM;
    }
    if (candidate->member_count > 1)
        qsort_r(candidate->members, candidate->member_count, sizeof *candidate->members,
                compare_member_paths, discovery->scan.entries);
    if (index->file_count == 0) {
        error_set(&error, "empty-index", EINVAL, "%s: weight_map names no shard", index_path);
        candidate_fail(candidate, &error);
    }
    return 0;
}

static int parse(struct candidate *candidate, const struct scan_entry *entry, const char *bytes,
                 size_t length, struct unshard_error *error)
{
    return index_file_parse(bytes, length, entry->path, entry->name, &candidate->index_arena,
                            &candidate->index, error);
}

/* Claims the numbered shards of an index that cannot be used, so that they are not taken for more
 * than they are. */
static int claim_numbered_shards(struct discovery *discovery, struct candidate *candidate,
                                 const struct directory_weights *weights)
{
    if (candidate_reserve(discovery, candidate, weights->count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        if (file->kind == WEIGHT_NAME_SHARD &&
            strcmp(file->merged_name, candidate->merged_name) == 0 &&
            entry_of(discovery, file->entry)->kind == SCAN_FILE)
            candidate_add_member(discovery, candidate, file->entry);
    }
    return 0;
}

static int group_index(struct discovery *discovery, uint32_t directory,
                       const struct directory_weights *weights, uint32_t number)
{
    const struct weight_file *file = &weights->files[number];
    struct candidate *candidate = candidate_of_file(discovery, directory, file);
    if (candidate == NULL)
        return -ENOMEM;
    candidate->index_entry = file->entry;
    candidate->index_name = file->index_name;
    int result = candidate_read(discovery, candidate, file->entry, INDEX_FILE_MAX_BYTES, parse) == 0
                     ? claim_named_shards(discovery, candidate)
                     : claim_numbered_shards(discovery, candidate, weights);
    if (result == 0)
        result = candidate_settle_merged_name(discovery, candidate);
    return result;
}

struct candidate *grouping_indexed_candidate(struct discovery *discovery,
                                             struct indexed_range range, const char *merged_name)
{
    while (range.first < range.end) {
        uint32_t middle = range.first + (range.end - range.first) / 2;
        int order = strcmp(merged_name, discovery->candidates[middle]->merged_name);
        if (order == 0)
            return discovery->candidates[middle];
        if (order < 0)
            range.end = middle;
        else
            range.first = middle + 1;
    }
    return NULL;
}

int grouping_find_indexes(struct discovery *discovery, uint32_t directory,
                          const struct directory_weights *weights, struct indexed_range *out)
{
    out->first = out->end = discovery->candidate_count;
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        if (file->kind != WEIGHT_NAME_INDEX)
            break;
        struct candidate *other = grouping_indexed_candidate(discovery, *out, file->merged_name);
        if (other == NULL) {
            int result = group_index(discovery, directory, weights, i);
            if (result != 0)
                return result;
            out->end = discovery->candidate_count;
        } else {
            if (candidate_replaces(other, file->entry) != 0)
                return -ENOMEM;
            note_add(&other->notes, &discovery->checkpoint->arena,
                     "%s is a second index of the same files; it is not used.",
                     entry_of(discovery, file->entry)->path);
        }
    }
    return 0;
}
