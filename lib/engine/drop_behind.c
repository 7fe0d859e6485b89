/* SPDX-License-Identifier: MIT
 *
 * Giving page cache back behind readers. Where the checkpoint does not fit in memory the kernel
 * would reclaim first what nobody has read yet: pages that a reader has passed are on its active
 * list, stored ones wait on the inactive one. So the engine keeps a budget of its own, and drops
 * what was passed longest ago before the kernel has a reason to reclaim anything.
 *
 * Passed chunks are queued in a ring. An entry may be stale (its chunk was dropped by the kernel
 * and fetched again meanwhile): what counts is the chunk's state when its turn comes.
 */
#include "engine/engine_internal.h"

#include "base/lazy_array.h"

#include <errno.h>

/* Chunks of 64 KiB that fill 256 GiB of memory. */
#define MOST_PASSED ((size_t)1 << 22)

int drop_behind_init(struct unshard_engine *engine)
{
    engine->window.passed.capacity = MOST_PASSED;
    engine->window.passed.chunks =
        lazy_array_new(engine->window.passed.capacity, sizeof *engine->window.passed.chunks);
    return engine->window.passed.chunks != NULL ? 0 : -ENOMEM;
}

void drop_behind_free(struct unshard_engine *engine)
{
    lazy_array_free(engine->window.passed.chunks, engine->window.passed.capacity,
                    sizeof *engine->window.passed.chunks);
}

void drop_behind_note(struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    struct passed_ring *ring = &engine->window.passed;
    if (!engine->window.limited)
        return;
    if (ring->count == ring->capacity) { /* full of stale entries */
        ring->first = (ring->first + 1) % ring->capacity;
        ring->count--;
    }
    ring->chunks[(ring->first + ring->count++) % ring->capacity] =
        (struct passed_chunk){file, index};
}

/* The passed chunk that is to go, forgotten by its file. False: none, or the budget holds. Caller
 * holds engine->lock. */
static bool take_oldest(struct unshard_engine *engine, struct passed_chunk *out)
{
    struct passed_ring *ring = &engine->window.passed;
    while (ring->count > 0 && engine->window.published_bytes > engine->window.keep_bytes) {
        *out = ring->chunks[ring->first];
        ring->first = (ring->first + 1) % ring->capacity;
        ring->count--;
        const struct file_state *file = &engine->files[out->file];
        if (out->index >= file->chunk_count)
            continue; /* a plain file that has become shorter */
        const struct chunk *chunk = &file->chunks[out->index];
        if (chunk->state != CHUNK_PUBLISHED || !chunk->consumed)
            continue;
        chunk_forget(engine, out->file, out->index, WANTED_BY_READERS);
        schedule_dropped(engine, out->file);
        engine->pages.bytes_dropped += chunk_length(engine, out->file, out->index);
        /* Drops block on readers as stores do, and are drained with them. */
        engine->pages.stores_running++;
        return true;
    }
    return false;
}

static void drop_from_view(struct unshard_engine *engine, uint32_t view, struct passed_chunk which)
{
    const struct extent_map *map = view_map(engine, view);
    uint64_t start = (uint64_t)which.index * engine->chunk_bytes;
    struct extent_map_images images =
        extent_map_images_of(map, which.file, start, engine->chunk_bytes);
    struct extent_piece image;
    while (extent_map_next_image(&images, &image)) {
        /* Pages shared with a neighbour stay: they may be all that is there of it. */
        uint64_t first = (image.view_offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        uint64_t end = (image.view_offset + image.length) / PAGE_BYTES * PAGE_BYTES;
        if (first < end)
            engine->publisher.drop(engine->publisher.context, view, first, end - first);
    }
}

void drop_behind(struct unshard_engine *engine)
{
    struct passed_chunk which;
    if (engine->publisher.drop == NULL)
        return;
    pthread_mutex_lock(&engine->lock);
    while (!engine->pages.no_stores && take_oldest(engine, &which)) {
        pthread_mutex_unlock(&engine->lock);
        uint32_t view;
        for (uint32_t i = 0; file_view(engine, which.file, i, &view); i++)
            drop_from_view(engine, view, which);
        pthread_mutex_lock(&engine->lock);
        if (--engine->pages.stores_running == 0)
            pthread_cond_broadcast(&engine->pages.stores_done);
    }
    pthread_mutex_unlock(&engine->lock);
}
