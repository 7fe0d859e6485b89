/* SPDX-License-Identifier: MIT
 *
 * Names of one file: a blob of a hub cache by its own name and in every revision, hard links. Each
 * is a file of its own to readers, but with verify=strict one pass over any of them tells of all.
 *
 * Files with the same identity that must match the same digest stand in a ring, which each joins as
 * it comes. It counts for as long as nothing has changed on disk (their first epochs).
 */
#include "engine/engine_internal.h"

#include "base/lazy_array.h"

#include <errno.h>
#include <stdlib.h>

/* Many files are few in each. */
#define BUCKETS (UINT32_C(1) << 14)

int same_files_init(struct unshard_engine *engine)
{
    struct same_files *same = &engine->trust.same_files;
    same->room = (size_t)checkpoint_file_room(engine->checkpoint) + 1;
    same->next = lazy_array_new(same->room, sizeof *same->next);
    same->by_name = lazy_array_new(same->room, sizeof *same->by_name);
    same->buckets = calloc(BUCKETS, sizeof *same->buckets);
    return same->next != NULL && same->by_name != NULL && same->buckets != NULL ? 0 : -ENOMEM;
}

void same_files_free(struct unshard_engine *engine)
{
    struct same_files *same = &engine->trust.same_files;
    lazy_array_free(same->next, same->room, sizeof *same->next);
    lazy_array_free(same->by_name, same->room, sizeof *same->by_name);
    free(same->buckets);
}

static uint32_t *bucket_of(const struct unshard_engine *engine, uint32_t number)
{
    const struct source_file *file = &engine->checkpoint->files[number];
    uint64_t name[] = {file->device, file->inode};
    return &engine->trust.same_files.buckets[XXH3_64bits(name, sizeof name) % BUCKETS];
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

static uint32_t ring_next(const struct unshard_engine *engine, uint32_t number)
{
    uint32_t next = engine->trust.same_files.next[number];
    return next == 0 ? number : next - 1;
}

void same_file_add(struct unshard_engine *engine, uint32_t number)
{
    struct same_files *same = &engine->trust.same_files;
    const struct file_epoch *epoch = engine->files[number].epoch;
    if (epoch->check->kind != CHECK_WHOLE || !epoch_is_first(epoch))
        return;
    uint32_t *bucket = bucket_of(engine, number), other = *bucket;
    while (other != 0 &&
           !(epoch_is_first(engine->files[other - 1].epoch) && is_same(engine, other - 1, number)))
        other = same->by_name[other - 1];
    if (other != 0) {
        same->next[number] = ring_next(engine, other - 1) + 1;
        same->next[other - 1] = number + 1;
    }
    same->by_name[number] = *bucket;
    *bucket = number + 1;
}

void same_file_remove(struct unshard_engine *engine, uint32_t number)
{
    struct same_files *same = &engine->trust.same_files;
    uint32_t *link = bucket_of(engine, number), before = number;
    while (*link != 0 && *link != number + 1)
        link = &same->by_name[*link - 1];
    if (*link != 0)
        *link = same->by_name[number];
    while (ring_next(engine, before) != number)
        before = ring_next(engine, before);
    same->next[before] = same->next[number];
    if (same->next[before] == before + 1)
        same->next[before] = 0;
    same->next[number] = same->by_name[number] = 0;
}

uint32_t same_file_next(const struct unshard_engine *engine, uint32_t number, uint32_t at)
{
    while ((at = ring_next(engine, at)) != number)
        if (epoch_is_first(engine->files[number].epoch) && epoch_is_first(engine->files[at].epoch))
            break;
    return at;
}
