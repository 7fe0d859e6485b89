/* SPDX-License-Identifier: MIT
 *
 * From a checked chunk to pages of views. A chunk appears in a view as one or more images, at any
 * alignment. The whole pages of an image are stored at once; the bytes at its ends go to the held
 * pages, and are stored when the neighbouring chunk has brought the rest of their page. Where
 * readers must be seen passing, one page in sentinel_pages is held back.
 */
#include "engine/engine_internal.h"

#include <errno.h>
#include <string.h>

struct publication {
    struct unshard_engine *engine;
    uint32_t view;
    uint64_t view_size, sentinel_pages;
    int error; /* of the first store that failed */
};

static void store(struct publication *to, uint64_t offset, const char *data, uint64_t length)
{
    struct unshard_engine *engine = to->engine;
    if (length == 0 || to->error != 0)
        return;
    to->error = engine->publisher.store(engine->publisher.context, to->view, offset, data, length);
    if (to->error == 0)
        __atomic_fetch_add(&engine->pages.bytes_stored, length, __ATOMIC_RELAXED);
}

static bool is_sentinel(const struct publication *to, uint64_t page)
{
    return to->sentinel_pages != 0 && page % to->sentinel_pages == to->sentinel_pages - 1;
}

/* Puts the literal bytes of a seam page in, so that only chunks are waited for. True and the page
 * in `out` when that completes it. */
static bool add_literals(struct publication *to, uint64_t page, uint32_t needed, char *out)
{
    const struct extent_map *map = view_map(to->engine, to->view);
    uint64_t start = page * PAGE_BYTES, end = start + needed;
    bool complete = false;
    for (uint64_t at = start; at < end && !complete;) {
        struct extent_piece piece = extent_map_at(map, at, end - at);
        if (piece.source == EXTENT_LITERAL)
            complete = held_pages_add(&to->engine->held, to->view, page, (uint32_t)(at - start),
                                      map->literal + piece.source_offset, (uint32_t)piece.length,
                                      needed, out);
        at += piece.length;
    }
    return complete;
}

static uint32_t bytes_of_page(const struct publication *to, uint64_t page)
{
    uint64_t rest = to->view_size - page * PAGE_BYTES;
    return (uint32_t)(rest < PAGE_BYTES ? rest : PAGE_BYTES);
}

/* The page's store is one of each file that has bytes in it. Caller holds engine->lock. */
static void count_page_stores(struct unshard_engine *engine, uint32_t view, uint64_t page,
                              bool begin)
{
    const struct extent_map *map = view_map(engine, view);
    uint64_t end = (page + 1) * PAGE_BYTES;
    for (uint64_t at = page * PAGE_BYTES; at < end && at < map->size;) {
        struct extent_piece piece = extent_map_at(map, at, end - at);
        at += piece.length;
        if (piece.source == EXTENT_LITERAL)
            continue;
        struct file_state *file = &engine->files[piece.source];
        file->stores += begin ? 1U : -1U;
        if (file->stores == 0 && gate_is_blocked(&file->gate))
            pthread_cond_broadcast(&engine->pages.stores_done);
    }
}

/* From now on no file that has bytes in the page begins anew, unless one of them is not served:
 * then the page must not be stored. Every true is paired with end_page. */
static bool begin_page(const struct publication *to, uint64_t page)
{
    struct unshard_engine *engine = to->engine;
    pthread_mutex_lock(&engine->lock);
    bool served = view_is_served(engine, to->view, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    if (served)
        count_page_stores(engine, to->view, page, true);
    pthread_mutex_unlock(&engine->lock);
    return served;
}

static void end_page(const struct publication *to, uint64_t page)
{
    pthread_mutex_lock(&to->engine->lock);
    count_page_stores(to->engine, to->view, page, false);
    pthread_mutex_unlock(&to->engine->lock);
}

/* Stores a page that was put together. Until it is in the page cache it stays in memory, for reads
 * and for another try: this chunk comes again when the store has failed, its neighbour may not. */
static void store_page(struct publication *to, uint64_t page, const char *data, uint32_t length)
{
    store(to, page * PAGE_BYTES, data, length);
    if (to->error == 0)
        held_pages_forget_range(&to->engine->held, to->view, page, page);
}

/* A part of one page. */
static void publish_fragment(struct publication *to, uint64_t offset, const char *data,
                             uint64_t length)
{
    char complete_page[HELD_PAGE_BYTES];
    uint64_t page = offset / PAGE_BYTES;
    uint32_t needed = bytes_of_page(to, page);
    if (length == 0)
        return;
    bool served = begin_page(to, page);
    bool complete =
        held_pages_add(&to->engine->held, to->view, page, (uint32_t)(offset % PAGE_BYTES), data,
                       (uint32_t)length, needed, complete_page) ||
        add_literals(to, page, needed, complete_page);
    if (complete && served && !is_sentinel(to, page))
        store_page(to, page, complete_page, needed);
    if (served)
        end_page(to, page);
}

/* Whole pages, but for the last one at the end of the view; sentinels are left out and held. */
static void publish_pages(struct publication *to, uint64_t offset, const char *data,
                          uint64_t length)
{
    uint64_t every = to->sentinel_pages;
    while (length > 0 && every != 0) {
        uint64_t page = offset / PAGE_BYTES;
        uint64_t before = (every - 1 - page % every) * PAGE_BYTES;
        if (before >= length)
            break;
        store(to, offset, data, before);
        uint64_t sentinel = length - before < PAGE_BYTES ? length - before : PAGE_BYTES;
        publish_fragment(to, offset + before, data + before, sentinel);
        offset += before + sentinel;
        data += before + sentinel;
        length -= before + sentinel;
    }
    store(to, offset, data, length);
}

static void publish_image(struct publication *to, struct extent_piece image, const char *data)
{
    uint64_t start = image.view_offset, end = start + image.length;
    uint64_t first = (start + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint64_t last = end == to->view_size ? end : end / PAGE_BYTES * PAGE_BYTES;
    if (first >= last && start / PAGE_BYTES == (end - 1) / PAGE_BYTES) {
        publish_fragment(to, start, data, image.length);
        return;
    }
    publish_fragment(to, start, data, first - start);
    if (last > first)
        publish_pages(to, first, data + (first - start), last - first);
    else
        last = first;
    publish_fragment(to, last, data + (last - start), end - last);
}

static int publish_to_view(struct unshard_engine *engine, uint32_t view, const struct fetch *fetch,
                           uint64_t sentinel_pages)
{
    const struct extent_map *map = view_map(engine, view);
    uint64_t chunk_start = (uint64_t)fetch->index * engine->chunk_bytes;
    struct publication to = {engine, view, map->size, sentinel_pages, 0};
    struct extent_map_images images =
        extent_map_images_of(map, fetch->file, chunk_start, fetch->length);
    struct extent_piece image;
    while (to.error == 0 && extent_map_next_image(&images, &image))
        publish_image(&to, image, fetch->buffer + (image.source_offset - chunk_start));
    return to.error;
}

/* The view is looked up by somebody, and a prefetched one that was not evicted, or open. Readers
 * that see nothing of the page cache want no pages: where only these are, the plan has to want
 * them.
 */
static bool wants_pages(const struct unshard_engine *engine, uint32_t view)
{
    const struct view_state *state = &engine->views[view];
    bool prefetched = engine->checkpoint->views[view].prefetch && !state->evicted;
    bool planned = prefetched && state->planned && plan_is_followed(engine);
    bool only_direct = state->opened > 0 && state->direct == state->opened;
    return state->known && (planned || (!only_direct && (prefetched || state->opened > 0)));
}

static void note_store_error(struct unshard_engine *engine, uint32_t view, int error)
{
    if (error == -ENOENT) {
        unshard_engine_view_known(engine, view, false);
        return;
    }
    pthread_mutex_lock(&engine->lock);
    engine->pages.store_errors++;
    bool first = engine->views[view].store_failures == 0;
    schedule_note_store(engine, view, true);
    pthread_mutex_unlock(&engine->lock);
    if (first)
        engine_log(engine, 4, "event=store-failed view=\"%s\" errno=%d",
                   engine->checkpoint->views[view].path, -error);
}

/* Begins a store unless stores are stopped, or the chunk is not to be served any more; every true
 * is paired with end_store. */
static bool begin_store(struct unshard_engine *engine, const struct fetch *fetch, uint32_t view,
                        uint64_t *sentinel_pages)
{
    pthread_mutex_lock(&engine->lock);
    struct file_state *file = &engine->files[fetch->file];
    bool go = !engine->pages.no_stores && wants_pages(engine, view) && !fetch->orphan;
    engine->pages.stores_running += go;
    file->stores += go;
    engine->views[view].storing += go;
    *sentinel_pages = engine->window.sentinel_pages;
    pthread_mutex_unlock(&engine->lock);
    return go;
}

static void end_store(struct unshard_engine *engine, const struct fetch *fetch, uint32_t view,
                      int error)
{
    pthread_mutex_lock(&engine->lock);
    if (error == 0)
        schedule_note_store(engine, view, false);
    struct file_state *file = &engine->files[fetch->file];
    engine->pages.stores_running--;
    file->stores--;
    engine->views[view].storing--;
    if (engine->views[view].storing == 0 || (file->stores == 0 && gate_is_blocked(&file->gate)))
        pthread_cond_broadcast(&engine->pages.stores_done);
    pthread_mutex_unlock(&engine->lock);
}

bool publish_is_wanted(const struct unshard_engine *engine, const struct fetch *fetch)
{
    const struct file_state *file = &engine->files[fetch->file];
    for (uint32_t i = 0; i < file->views.count && !engine->pages.no_stores; i++)
        if (wants_pages(engine, file->views.numbers[i]))
            return true;
    return false;
}

bool publish_chunk(struct unshard_engine *engine, struct fetch *fetch, bool *failed)
{
    bool stored = false;
    uint32_t view;
    for (uint32_t i = 0; file_view(engine, fetch->file, i, &view); i++) {
        uint64_t sentinel_pages;
        if (!begin_store(engine, fetch, view, &sentinel_pages))
            continue;
        int error = publish_to_view(engine, view, fetch, sentinel_pages);
        end_store(engine, fetch, view, error);
        stored = stored || error == 0;
        *failed = *failed || (error != 0 && error != -ENOENT);
        if (error != 0)
            note_store_error(engine, view, error);
    }
    return stored;
}
