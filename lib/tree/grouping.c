/* SPDX-License-Identifier: MIT */
#include "tree/grouping.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Puts the names of candidates that were added into the map. */
static int note_candidates(struct discovery *discovery, struct directory_weights *weights)
{
    for (; weights->noted < discovery->candidate_count; weights->noted++) {
        const char *name = discovery->candidates[weights->noted]->merged_name;
        if (string_map_add(weights->merged, name, strlen(name), weights->noted, NULL) < 0)
            return -ENOMEM;
    }
    return 0;
}

static void note_not_in_index(struct discovery *discovery, struct candidate *candidate,
                              uint32_t entry)
{
    note_add(&candidate->notes, &discovery->checkpoint->arena,
             "%s is not named by the index; it is shown as it is.",
             entry_of(discovery, entry)->path);
}

/* The same tensors are there in one piece: what a save leaves that puts them together itself. */
static void note_pieces(struct discovery *discovery, struct candidate *whole,
                        const struct weight_file *files)
{
    note_add(&whole->notes, &discovery->checkpoint->arena,
             "%s and others like it are pieces of the same tensors; they are shown as they are.",
             entry_of(discovery, files[0].entry)->path);
}

/* Files of one merged name from files[0] on, that no index names: those of one rank each, or those
 * that are not. */
static uint32_t count_alike(struct discovery *discovery, const struct weight_file *files,
                            uint32_t count)
{
    uint32_t alike = 1;
    while (alike < count && files[alike].kind == WEIGHT_NAME_SHARD &&
           !entry_of(discovery, files[alike].entry)->claimed &&
           strcmp(files[alike].merged_name, files[0].merged_name) == 0 &&
           (files[alike].rank > 0) == (files[0].rank > 0))
        alike++;
    return alike;
}

static int group_shards(struct discovery *discovery, uint32_t directory, struct indexed_range range,
                        struct directory_weights *weights)
{
    uint32_t end;
    for (uint32_t i = 0; i < weights->count; i = end) {
        const struct weight_file *file = &weights->files[i];
        int result = 0;
        uint32_t other;
        end = i + 1;
        if (file->kind != WEIGHT_NAME_SHARD || entry_of(discovery, file->entry)->claimed)
            continue;
        struct candidate *indexed = grouping_indexed_candidate(discovery, range, file->merged_name);
        uint32_t alike = count_alike(discovery, file, weights->count - i);
        if (indexed != NULL && file->rank == 0) {
            note_not_in_index(discovery, indexed, file->entry);
            continue;
        }
        end = i + alike;
        if (file->rank > 0 &&
            string_map_find(weights->merged, file->merged_name, strlen(file->merged_name), &other))
            note_pieces(discovery, discovery->candidates[other], file);
        else if (file->rank > 0)
            result = grouping_add_ranks(discovery, directory, file, alike);
        else
            result = grouping_add_numbered(discovery, directory, file, alike);
        if (result == 0)
            result = note_candidates(discovery, weights);
        if (result != 0)
            return result;
    }
    return 0;
}

/* The format shows a file of its own for it: that is to have a name that no other has. */
static int group_converted_file(struct discovery *discovery, uint32_t directory,
                                const struct weight_file *file, struct directory_weights *weights)
{
    uint32_t other;
    if (string_map_find(weights->merged, file->merged_name, strlen(file->merged_name), &other)) {
        note_add(&discovery->candidates[other]->notes, &discovery->checkpoint->arena,
                 "%s would have the same name; it is shown as it is.",
                 entry_of(discovery, file->entry)->path);
        return 0;
    }
    struct candidate *candidate = candidate_of_file(discovery, directory, file);
    if (candidate == NULL || candidate_reserve(discovery, candidate, 1) != 0)
        return -ENOMEM;
    candidate_add_member(discovery, candidate, file->entry);
    int result = candidate_settle_merged_name(discovery, candidate);
    return result == 0 ? note_candidates(discovery, weights) : result;
}

static int group_single_files(struct discovery *discovery, uint32_t directory,
                              struct indexed_range range, struct directory_weights *weights)
{
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        const struct scan_entry *entry = entry_of(discovery, file->entry);
        if (file->kind != WEIGHT_NAME_SINGLE || entry->kind != SCAN_FILE || entry->claimed)
            continue;
        if (file->format->shown_as != NULL) {
            int result = group_converted_file(discovery, directory, file, weights);
            if (result != 0)
                return result;
            continue;
        }
        if (range.first < range.end)
            note_not_in_index(discovery, discovery->candidates[range.first], file->entry);
        struct candidate *candidate = candidate_of_file(discovery, directory, file);
        if (candidate == NULL)
            return -ENOMEM;
        candidate->merged_name = entry->name;
        int result = candidate_use_complete_file(discovery, candidate, file->entry);
        if (result != 0)
            return result;
    }
    return 0;
}

/* Leaves out files of which an earlier format shows another form under the same name. */
static void drop_taken_names(struct discovery *discovery, struct directory_weights *weights)
{
    uint32_t kept = 0, other;
    for (uint32_t i = 0; i < weights->count; i++) {
        struct weight_file *file = &weights->files[i];
        struct scan_entry *entry = entry_of(discovery, file->entry);
        if (!string_map_find(weights->merged, file->merged_name, strlen(file->merged_name),
                             &other)) {
            weights->files[kept++] = *file;
            continue;
        }
        struct candidate *candidate = discovery->candidates[other];
        note_add(&candidate->notes, &discovery->checkpoint->arena,
                 "%s is another form of it; it is shown as it is.", entry->path);
    }
    weights->count = kept;
}

static int group_format(struct discovery *discovery, uint32_t directory,
                        const struct format *format, struct directory_weights *weights)
{
    struct indexed_range range;
    int result = weight_files_collect(discovery, directory, format, weights);
    if (result == 0) {
        drop_taken_names(discovery, weights);
        result = grouping_find_indexes(discovery, directory, weights, &range);
    }
    if (result == 0)
        result = note_candidates(discovery, weights);
    if (result == 0)
        result = group_shards(discovery, directory, range, weights);
    if (result == 0)
        result = group_single_files(discovery, directory, range, weights);
    if (result == 0)
        result = note_candidates(discovery, weights);
    free(weights->files);
    weights->files = NULL;
    return result;
}

static int group_directory(struct discovery *discovery, uint32_t directory)
{
    struct string_map merged = {0};
    struct directory_weights weights = {.looked_at = discovery->candidate_count,
                                        .noted = discovery->candidate_count,
                                        .merged = &merged};
    int result = 0;
    for (size_t i = 0; i < format_count && result == 0; i++) {
        const struct format *format = format_table[i];
        if (format->shown_as != NULL &&
            discovery->checkpoint->options.pickle == UNSHARD_PICKLE_ASIS)
            continue;
        result = format->described != NULL
                     ? grouping_find_described(discovery, directory, format, &weights)
                     : group_format(discovery, directory, format, &weights);
    }
    string_map_free(&merged);
    return result;
}

int grouping_find(struct discovery *discovery, struct unshard_error *error)
{
    int result = 0;
    for (uint32_t i = 0; i < discovery->scan.count && result == 0; i++)
        if (scan_is_focus(&discovery->scan, i) && !entry_of(discovery, i)->set_aside)
            result = group_directory(discovery, i);
    return result == 0 ? 0 : error_no_memory(error);
}
