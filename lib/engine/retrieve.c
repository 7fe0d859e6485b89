/* SPDX-License-Identifier: MIT
 *
 * A reader with O_DIRECT asks for a chunk whose pages have been stored: they are taken back out of
 * the page cache, so that storage is not read a second time. What comes is believed only when it is
 * what was read and checked before: a page may have been dropped and be filled again just now.
 */
#include "engine/engine_internal.h"

#include <errno.h>
#include <string.h>

/* As much of a chunk is read from storage to have the rest from the page cache. */
#define MOST_HEAD_BYTES (UINT64_C(256) << 10)

/* The chunk stands in the view as one piece to its end, but for a head that is not shown, as the
 * header of a shard is not. */
static bool stands_in_view(const struct unshard_engine *engine, const struct fetch *fetch,
                           uint32_t view, struct extent_piece *image)
{
    uint64_t start = (uint64_t)fetch->index * engine->chunk_bytes;
    struct extent_map_images images =
        extent_map_images_of(view_map(engine, view), fetch->file, start, fetch->length);
    return extent_map_next_image(&images, image) &&
           image->source_offset + image->length == start + fetch->length &&
           image->source_offset - start <= MOST_HEAD_BYTES;
}

static bool find_view(struct unshard_engine *engine, const struct fetch *fetch, uint32_t *view,
                      struct extent_piece *image)
{
    for (uint32_t i = 0; file_view(engine, fetch->file, i, view); i++)
        if (stands_in_view(engine, fetch, *view, image))
            return true;
    return false;
}

/* The buffer holds what the chunk was when it was read. */
static bool is_what_was_read(struct unshard_engine *engine, struct fetch *fetch)
{
    struct unshard_error ignored;
    if (check_chunk(engine, fetch, &ignored) != 0)
        return false;
    if (fetch->check->kind == CHECK_CHUNKS && engine->options.verify != UNSHARD_VERIFY_OFF)
        return true;
    pthread_mutex_lock(&engine->lock);
    const struct file_state *file = &engine->files[fetch->file];
    bool same = !fetch->orphan && file->chunks[fetch->index].seen &&
                memcmp(file->digests[fetch->index].bytes, fetch->digest.bytes,
                       sizeof file->digests->bytes) == 0;
    pthread_mutex_unlock(&engine->lock);
    return same;
}

static void note_missing_pages(struct unshard_engine *engine, struct fetch *fetch)
{
    pthread_mutex_lock(&engine->lock);
    fetch->stored = false;
    pthread_mutex_unlock(&engine->lock);
}

/* Reads [from, end) of the chunk from storage, in whole blocks. */
static bool read_edge(struct unshard_engine *engine, struct fetch *fetch, uint64_t from,
                      uint64_t end)
{
    struct unshard_error ignored;
    bool cached;
    from = from / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    end = (end + DIRECT_ALIGNMENT - 1) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    end = end < fetch->length ? end : fetch->length;
    uint64_t start = (uint64_t)fetch->index * engine->chunk_bytes;
    return from >= end || source_read(engine->source, fetch->file, start + from,
                                      fetch->buffer + from, end - from, &cached, &ignored) == 0;
}

/* Takes what stands at `image` in the view, and reads what lies before and behind it in the chunk.
 */
static int take(struct unshard_engine *engine, struct fetch *fetch, uint32_t view,
                struct extent_piece image)
{
    uint64_t from = image.source_offset - (uint64_t)fetch->index * engine->chunk_bytes;
    uint64_t end = from + image.length;
    int result = engine->publisher.retrieve(engine->publisher.context, view, image.view_offset,
                                            fetch->buffer + from, image.length);
    if (result != 0)
        return result;
    return read_edge(engine, fetch, 0, from) && read_edge(engine, fetch, end, fetch->length) ? 0
                                                                                             : -EIO;
}

/* Of an image that shares its first and last page with neighbours: the pages that are its own. */
static struct extent_piece own_pages(struct extent_piece image)
{
    uint64_t end = image.view_offset + image.length;
    uint64_t first = (image.view_offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint64_t last = end / PAGE_BYTES * PAGE_BYTES;
    image.source_offset += first - image.view_offset;
    image.view_offset = first;
    image.length = first < last ? last - first : 0;
    return image;
}

bool retrieve_chunk(struct unshard_engine *engine, struct fetch *fetch)
{
    uint32_t view;
    struct extent_piece image;
    if (!find_view(engine, fetch, &view, &image))
        return false;
    int result = take(engine, fetch, view, image);
    struct extent_piece own = own_pages(image);
    if (result == -ENODATA && own.length > 0) /* a neighbour may not have been stored */
        result = take(engine, fetch, view, own);
    if (result == -ENODATA)
        note_missing_pages(engine, fetch);
    return result == 0 && is_what_was_read(engine, fetch);
}
