/* SPDX-License-Identifier: MIT
 *
 * Names of one file: a blob of a hub cache by its own name and in every revision, hard links. Each
 * is a file of its own to readers, but with verify=strict one pass over any of them tells of all.
 *
 * Files with the same identity that must match the same digest stand in a ring, which is built
 * before there are threads. It counts for as long as nothing has changed on disk (their first
 * epochs).
 */
#include "engine/engine_internal.h"

#include <errno.h>
#include <stdlib.h>

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_files(const void *left, const void *right, void *context)
{
    const struct unshard_engine *engine = context;
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    const struct source_file *one = &engine->checkpoint->files[a];
    const struct source_file *two = &engine->checkpoint->files[b];
    int order = compare_numbers(one->device, two->device);
    if (order == 0)
        order = compare_numbers(one->inode, two->inode);
    return order != 0 ? order : compare_numbers(a, b);
}

static bool is_same(const struct unshard_engine *engine, uint32_t a, uint32_t b)
{
    const struct source_file *one = &engine->checkpoint->files[a];
    const struct source_file *two = &engine->checkpoint->files[b];
    return one->device == two->device && one->inode == two->inode && one->size == two->size &&
           one->mtime_ns == two->mtime_ns && one->ctime_ns == two->ctime_ns &&
           digest_equal(&engine->files[a].epoch->whole->digest,
                        &engine->files[b].epoch->whole->digest);
}

int same_file_init(struct unshard_engine *engine)
{
    uint32_t count = engine->checkpoint->file_count, passed = 0;
    uint32_t *sorted = calloc((size_t)count + 1, sizeof *sorted);
    engine->trust.same_file = calloc((size_t)count + 1, sizeof *engine->trust.same_file);
    if (sorted == NULL || engine->trust.same_file == NULL) {
        free(sorted);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        engine->trust.same_file[i] = i;
        if (engine->files[i].epoch->check->kind == CHECK_WHOLE)
            sorted[passed++] = i;
    }
    qsort_r(sorted, passed, sizeof *sorted, compare_files, engine);
    for (uint32_t i = 1; i < passed; i++)
        if (is_same(engine, sorted[i - 1], sorted[i])) {
            engine->trust.same_file[sorted[i]] = engine->trust.same_file[sorted[i - 1]];
            engine->trust.same_file[sorted[i - 1]] = sorted[i];
        }
    free(sorted);
    return 0;
}

uint32_t same_file_next(const struct unshard_engine *engine, uint32_t number, uint32_t at)
{
    while ((at = engine->trust.same_file[at]) != number)
        if (epoch_is_first(engine->files[number].epoch) && epoch_is_first(engine->files[at].epoch))
            break;
    return at;
}
