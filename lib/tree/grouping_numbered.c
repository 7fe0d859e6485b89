/* SPDX-License-Identifier: MIT
 *
 * Components that only the numbers in the names of their shards tell of.
 */
#include "tree/grouping.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The name of shard `number` of the set that `like` is a shard of; malloc'd, NULL without memory.
 */
static char *numbered_name(const char *like, uint32_t number)
{
    const char *middle = strstr(like, "-of-"), *digits = middle;
    for (const char *later = middle; later != NULL; later = strstr(later + 1, "-of-"))
        middle = digits = later;
    while (digits > like && digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    struct text name = {0};
    text_printf(&name, "%.*s%0*u%s", (int)(digits - like), like, (int)(middle - digits), number,
                middle);
    return text_take(&name);
}

/* Files are sorted by number, without doubles. Notes the numbers that are not there. */
static int add_missing_numbers(struct discovery *discovery, struct candidate *candidate,
                               const struct weight_file *files, uint32_t count)
{
    const char *like = entry_of(discovery, files[0].entry)->name;
    uint32_t missing = files[0].total - count, i = 0;
    for (uint32_t number = 1; missing > 0 && candidate_may_add_absent(discovery, candidate);
         number++) {
        if (i < count && files[i].number == number) {
            i++;
            continue;
        }
        char *name = numbered_name(like, number);
        char *path = name != NULL ? scan_path_in(discovery, candidate->directory, name) : NULL;
        struct unshard_error error;
        int result = -ENOMEM;
        if (path != NULL) {
            char unfinished[256];
            error_set(&error, "missing", ENOENT, "%s: shard %u of %u is missing%s", path, number,
                      files[0].total,
                      scan_unfinished(discovery, candidate->directory, name, unfinished,
                                      sizeof unfinished));
            candidate->missing++;
            candidate->unfinished = candidate->unfinished || unfinished[0] != '\0';
            result = candidate_add_absent(discovery, candidate, path, &error);
        }
        free(name);
        free(path);
        if (result != 0)
            return result;
        missing--;
    }
    return 0;
}

/* Files of one merged name, sorted by total and number: can they be of one set? */
static int check_numbers(struct discovery *discovery, const struct weight_file *files,
                         uint32_t count, struct unshard_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct scan_entry *entry = entry_of(discovery, files[i].entry);
        if (files[i].number == 0 || files[i].number > files[i].total)
            return error_set(error, "bad-shard-number", EINVAL,
                             "%s: shard number %u is not in 1..%u", entry->path, files[i].number,
                             files[i].total);
        if (files[i].total != files[0].total)
            return error_set(error, "ambiguous-shards", EINVAL,
                             "%s: shards of %u and shards of %u, and no index tells which to use",
                             entry->path, files[0].total, files[i].total);
        if (i > 0 && files[i].number == files[i - 1].number)
            return error_set(error, "ambiguous-shards", EINVAL, "%s: another file is shard %u, too",
                             entry->path, files[i].number);
    }
    return 0;
}

int grouping_add_numbered(struct discovery *discovery, uint32_t directory,
                          const struct weight_file *files, uint32_t count)
{
    struct unshard_error error;
    struct candidate *candidate = candidate_of_file(discovery, directory, &files[0]);
    if (candidate == NULL || candidate_reserve(discovery, candidate, count) != 0)
        return -ENOMEM;
    int result = 0;
    candidate->index_name = files[0].index_name;
    candidate->no_set = check_numbers(discovery, files, count, &error) != 0;
    if (candidate->no_set)
        candidate_fail(candidate, &error);
    else
        result = add_missing_numbers(discovery, candidate, files, count);
    for (uint32_t i = 0; i < count && result == 0; i++) {
        const struct scan_entry *entry = entry_of(discovery, files[i].entry);
        if (entry->kind == SCAN_FILE) {
            candidate_add_member(discovery, candidate, files[i].entry);
        } else {
            result = candidate_add_absent(discovery, candidate, entry->path, entry->problem);
            if (result == 0)
                result = candidate_replaces(candidate, files[i].entry);
        }
    }
    return result != 0 ? result : candidate_settle_merged_name(discovery, candidate);
}

/* What each rank of a distributed save wrote. Which of them there should be is told by what they
 * hold: together it must be whole tensors. */
int grouping_add_ranks(struct discovery *discovery, uint32_t directory,
                       const struct weight_file *files, uint32_t count)
{
    struct candidate *candidate = candidate_of_file(discovery, directory, &files[0]);
    if (candidate == NULL || candidate_reserve(discovery, candidate, count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        const struct scan_entry *entry = entry_of(discovery, files[i].entry);
        int result = 0;
        if (entry->kind == SCAN_FILE) {
            candidate_add_member(discovery, candidate, files[i].entry);
        } else {
            result = candidate_add_absent(discovery, candidate, entry->path, entry->problem);
            if (result == 0)
                result = candidate_replaces(candidate, files[i].entry);
        }
        if (result != 0)
            return result;
    }
    return candidate_settle_merged_name(discovery, candidate);
}
