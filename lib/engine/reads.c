/* SPDX-License-Identifier: MIT
 *
 * Answering reads. A read is cut into pieces, one per extent and chunk. Pieces of READY chunks are
 * taken at once, the others wait for their chunk, which goes to the demand queue. Whoever completes
 * the last piece calls `done`. Reads never wait for a store.
 *
 * A request that is one piece of one chunk is `direct`: it is answered from the chunk's buffer, and
 * belongs to its only waiter. Any other has memory of its own, into which pieces are copied.
 */
#include "engine/engine_internal.h"

#include "engine/engine_error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void request_free(struct read_request *request)
{
    arena_free(&request->arena);
    free(request->data);
    free(request);
}

static void request_end(struct read_request *request, const char *data)
{
    request->done(request->cookie, atomic_load(&request->error), data, request->size);
    request_free(request);
}

static void request_unref(struct read_request *request)
{
    if (atomic_fetch_sub(&request->pending, 1) == 1)
        request_end(request, request->data);
}

void waiter_complete(struct waiter *waiter, const char *buffer, int error)
{
    struct read_request *request = waiter->request;
    if (error != 0)
        atomic_store(&request->error, error);
    if (request->direct) {
        request_end(request, error != 0 ? NULL : buffer + waiter->pieces->in_chunk);
        return;
    }
    for (const struct read_piece *piece = waiter->pieces; error == 0 && piece != NULL;
         piece = piece->next)
        memcpy(request->data + piece->in_request, buffer + piece->in_chunk, piece->length);
    request_unref(request);
}

/* Adds a piece to the waiter at *list if that is this request's and (for READY) of this fetch, or
 * to a new waiter in front of it. False when memory is short. */
static bool add_to_waiters(struct read_request *request, struct waiter **list, struct fetch *fetch,
                           struct read_piece values)
{
    struct waiter *waiter = *list;
    if (waiter == NULL || waiter->request != request || waiter->fetch != fetch) {
        bool first = request->first_waiter.request == NULL;
        waiter = first ? &request->first_waiter : arena_alloc(&request->arena, sizeof *waiter);
        if (waiter == NULL)
            return false;
        *waiter = (struct waiter){.next = *list, .request = request, .fetch = fetch};
        *list = waiter;
        atomic_fetch_add(&request->pending, 1);
    }
    struct read_piece *piece = &request->first_piece;
    if (piece->length != 0)
        piece = arena_alloc(&request->arena, sizeof *piece);
    if (piece == NULL)
        return false;
    *piece = values;
    piece->next = waiter->pieces;
    waiter->pieces = piece;
    return true;
}

/* The fetch to wait for, brought about when there is none; or NULL with a positive errno. *held:
 * the caller has a reference to it, READY. */
static struct fetch *fetch_for_read(struct unshard_engine *engine, uint32_t file, uint32_t index,
                                    bool uncached, bool *held, int *error)
{
    struct chunk *chunk = &engine->files[file].chunks[index];
    *error = EIO;
    *held = false;
    if (gate_is_blocked(&engine->files[file].gate))
        return NULL;
    if (chunk->fetch != NULL) {
        chunk->fetch->demanded = true;
        return chunk->fetch;
    }
    uint64_t now = engine_now_ns(), seconds = (now - engine->start_ns) / 1000000000U;
    const struct file_state *state = &engine->files[file];
    if (engine->stopping || (chunk->state == CHUNK_FAILED && seconds < chunk->retry_at) ||
        (gate_is_closed(&state->gate) && state->failing && now < state->pass_retry_ns))
        return NULL; /* it has failed just now */
    bool published = chunk->state == CHUNK_PUBLISHED;
    engine->pages.chunks_evicted += published && !uncached;
    struct fetch *fetch = fetch_create(engine, file, index);
    *error = ENOMEM;
    if (fetch == NULL)
        return NULL;
    fetch->stored = published && uncached; /* its pages are where they were */
    fetch->demanded = true;
    *held = uncached && fetch_from_kept(engine, fetch);
    if (!*held)
        fetch_queue(engine, fetch);
    return fetch;
}

/* The READ tells of a reader to whom the kernel had no page of the chunk to give although all were
 * stored. The page has to be one that is the chunk's alone and is not held back. */
static void note_missing(struct unshard_engine *engine, const struct read_request *request,
                         struct extent_piece piece, uint64_t length)
{
    struct chunk *chunk =
        &engine->files[piece.source].chunks[piece.source_offset / engine->chunk_bytes];
    uint64_t first = (piece.view_offset + PAGE_BYTES - 1) / PAGE_BYTES;
    uint64_t end = (piece.view_offset + length) / PAGE_BYTES, every = engine->window.sentinel_pages;
    bool believed = chunk->state == CHUNK_PUBLISHED ||
                    (chunk->fetch != NULL && chunk->fetch->stored && chunk->fetch->uncached);
    if (request->uncached || (!believed && !chunk->doubted))
        return;
    if (every != 0 && first % every == every - 1)
        first++;
    if (first >= end || gate_is_blocked(&engine->files[piece.source].gate))
        return;
    if (chunk->fetch != NULL && believed) { /* fetched for a reader with O_DIRECT */
        chunk->fetch->stored = false;
        engine->pages.chunks_evicted++;
    } else {
        schedule_doubt(engine, request->view, piece.view_offset, piece.view_offset + length, chunk);
    }
}

/* One extent's part of a request: splits it at chunk boundaries. Caller holds engine->lock. READY
 * chunks go to *ready, referenced. 0 or a positive errno. */
static int add_source_piece(struct unshard_engine *engine, struct read_request *request,
                            struct extent_piece piece, uint64_t request_offset,
                            struct waiter **ready)
{
    while (piece.length > 0) {
        uint32_t index = (uint32_t)(piece.source_offset / engine->chunk_bytes);
        uint32_t in_chunk = (uint32_t)(piece.source_offset % engine->chunk_bytes);
        uint64_t length = engine->chunk_bytes - in_chunk;
        if (length > piece.length)
            length = piece.length;
        struct read_piece part = {NULL, in_chunk, (uint32_t)(piece.view_offset - request_offset),
                                  (uint32_t)length};
        int error = 0;
        note_missing(engine, request, piece, part.length);
        bool held;
        struct fetch *fetch =
            fetch_for_read(engine, piece.source, index, request->uncached, &held, &error);
        if (fetch == NULL)
            return error;
        fetch->uncached = fetch->uncached || request->uncached;
        fetch->asked += length;
        bool is_ready = engine->files[piece.source].chunks[index].state == CHUNK_READY;
        if (!is_ready && fetch->awaited_ns == 0)
            fetch->awaited_ns = engine_now_ns();
        struct waiter *before = *ready;
        bool added = add_to_waiters(request, is_ready ? ready : &fetch->waiters,
                                    is_ready ? fetch : NULL, part);
        bool refers = is_ready && *ready != before;
        if (refers && !held)
            fetch_hold(fetch);
        if (!refers && held)
            fetch_release(engine, fetch);
        if (!added)
            return ENOMEM;
        piece.view_offset += length;
        piece.source_offset += length;
        piece.length -= length;
    }
    return 0;
}

/* Range of a request that is not there yet. Caller holds engine->lock. 0 or a positive errno. */
static int add_range(struct unshard_engine *engine, struct read_request *request, uint32_t view,
                     uint64_t offset, uint64_t end, uint64_t request_offset, struct waiter **ready)
{
    const struct extent_map *map = view_map(engine, view);
    while (offset < end) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        int error = 0;
        if (piece.source == EXTENT_LITERAL)
            memcpy(request->data + (offset - request_offset), map->literal + piece.source_offset,
                   piece.length);
        else
            error = add_source_piece(engine, request, piece, request_offset, ready);
        if (error != 0)
            return error;
        offset += piece.length;
    }
    return 0;
}

/* Some of a request that was held in memory, and is copied. */
struct held_part {
    struct held_part *next;
    uint64_t from, to, page; /* offsets in the view */
    bool complete;           /* the whole page was held */
};

/* Copies what is held of the request's pages; *parts: in order. No lock held. 0 or ENOMEM. */
static int copy_held(struct unshard_engine *engine, struct read_request *request, uint64_t offset,
                     struct held_part **parts)
{
    char data[HELD_PAGE_BYTES];
    uint64_t end = offset + request->size;
    for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < end; page++) {
        uint32_t from, to;
        if (!held_pages_take(&engine->held, request->view, page, !request->uncached, &from, &to,
                             data))
            continue;
        uint64_t begin = page * PAGE_BYTES;
        uint64_t first = begin + from > offset ? begin + from : offset;
        uint64_t last = begin + to < end ? begin + to : end;
        if (first >= last)
            continue;
        struct held_part *part = arena_alloc(&request->arena, sizeof *part);
        if (part == NULL)
            return ENOMEM;
        *part = (struct held_part){NULL, first, last, page, from == 0 && to == PAGE_BYTES};
        memcpy(request->data + (first - offset), data + (first - begin), last - first);
        *parts = part;
        parts = &part->next;
    }
    return 0;
}

/* The view is laid out as it was when the request was cut, so that offsets and lengths mean what
 * they meant. Caller holds engine->lock. */
static bool is_laid_out(const struct unshard_engine *engine, const struct read_request *request)
{
    return request->map == view_map(engine, request->view);
}

/* Adds what lies between the parts that were copied. All under one lock, so that it is of one
 * content of each file. Caller holds engine->lock. 0 or a positive errno. */
static int add_all(struct unshard_engine *engine, struct read_request *request, uint64_t offset,
                   const struct held_part *parts, struct waiter **ready)
{
    uint64_t start = offset, end = offset + request->size;
    int error = 0;
    if (!is_laid_out(engine, request))
        return EIO;
    if (request->epochs_begun != engine->epochs_begun)
        parts = NULL; /* they may be of a content before */
    for (; parts != NULL && error == 0; parts = parts->next) {
        uint64_t begin = parts->page * PAGE_BYTES;
        if (!view_is_served(engine, request->view, begin, begin + PAGE_BYTES))
            continue;
        if (parts->complete)
            schedule_note_sentinel(engine, request->view, parts->page);
        error = add_range(engine, request, request->view, start, parts->from, offset, ready);
        start = parts->to;
    }
    return error != 0 ? error
                      : add_range(engine, request, request->view, start, end, offset, ready);
}

static void take_ready(struct unshard_engine *engine, struct waiter *ready, int error)
{
    for (struct waiter *next; ready != NULL; ready = next) {
        next = ready->next;
        struct fetch *fetch = ready->fetch;
        waiter_complete(ready, fetch->buffer, error);
        pthread_mutex_lock(&engine->lock);
        fetch_release(engine, fetch);
        pthread_mutex_unlock(&engine->lock);
    }
}

/* The request is one piece of one chunk: nothing is copied. The request may be gone on return. */
static void read_direct(struct unshard_engine *engine, struct read_request *request,
                        struct extent_piece piece)
{
    struct waiter *ready = NULL;
    request->direct = true;
    pthread_mutex_lock(&engine->lock);
    int error = is_laid_out(engine, request)
                    ? add_source_piece(engine, request, piece, piece.view_offset, &ready)
                    : EIO;
    readers_wake(engine);
    pthread_mutex_unlock(&engine->lock);
    if (error != 0) {
        atomic_store(&request->error, error);
        request_end(request, NULL);
    } else {
        take_ready(engine, ready, 0);
    }
}

static void read_assembled(struct unshard_engine *engine, struct read_request *request,
                           uint64_t offset)
{
    struct waiter *ready = NULL;
    struct held_part *parts = NULL;
    atomic_store(&request->pending, 1);
    request->data = malloc(request->size);
    int error = ENOMEM;
    if (request->data != NULL)
        error = copy_held(engine, request, offset, &parts);
    pthread_mutex_lock(&engine->lock);
    if (error == 0)
        error = add_all(engine, request, offset, parts, &ready);
    if (error != 0)
        atomic_store(&request->error, error);
    readers_wake(engine);
    pthread_mutex_unlock(&engine->lock);
    take_ready(engine, ready, 0);
    request_unref(request);
}

static bool is_direct(const struct unshard_engine *engine, struct extent_piece piece, size_t size)
{
    return piece.length == size && held_pages_empty(&engine->held) &&
           piece.source_offset % engine->chunk_bytes + size <= engine->chunk_bytes;
}

bool engine_view_error(struct unshard_engine *engine, uint32_t view, struct unshard_error *error)
{
    const struct extent_map *map = view_map(engine, view);
    bool found = false;
    pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < map->count && !found; i++) {
        uint32_t source = map->extents[i].source;
        const struct unshard_error *known =
            source != EXTENT_LITERAL ? file_error(engine, source) : NULL;
        found = known != NULL;
        if (found)
            *error = *known;
    }
    pthread_mutex_unlock(&engine->lock);
    return found;
}

/* Some bytes of the range are of files that are closed, others are not. Caller holds engine->lock.
 * What is closed will be opened as for any other read. */
static bool waits_in_part(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                          uint64_t size)
{
    const struct extent_map *map = view_map(engine, view);
    bool some = false, others = false;
    if (engine->passes.count == 0)
        return false; /* nothing is ever closed */
    for (uint64_t end = offset + size; offset < end;) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        bool closed =
            piece.source != EXTENT_LITERAL && gate_is_closed(&engine->files[piece.source].gate);
        some = some || closed;
        others = others || !closed;
        offset += piece.length;
    }
    return some && others;
}

bool waiter_is_part(const struct waiter *waiter)
{
    size_t bytes = 0;
    for (const struct read_piece *piece = waiter->pieces; piece != NULL; piece = piece->next)
        bytes += piece->length;
    return waiter->request->ahead && bytes < waiter->request->size;
}

enum read_kind { READ_PLAIN, READ_AHEAD, READ_UNCACHED };

static void engine_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, size_t size,
                        enum read_kind kind, unshard_read_done done, void *cookie)
{
    const struct extent_map *map =
        view < checkpoint_view_room(engine->checkpoint) ? view_map(engine, view) : NULL;
    if (map == NULL || engine->checkpoint->views[view].unreadable) {
        done(cookie, map == NULL ? EINVAL : EIO, NULL, 0);
        return;
    }
    if (offset >= map->size || size == 0) {
        done(cookie, 0, "", 0);
        return;
    }
    if (size > map->size - offset)
        size = (size_t)(map->size - offset);
    struct extent_piece piece = extent_map_at(map, offset, size);
    if (piece.source == EXTENT_LITERAL && piece.length == size) {
        done(cookie, 0, map->literal + piece.source_offset, size);
        return;
    }
    struct read_request *request = calloc(1, sizeof *request);
    if (request == NULL) {
        done(cookie, ENOMEM, NULL, 0);
        return;
    }
    request->done = done;
    request->cookie = cookie;
    request->size = size;
    request->map = map;
    request->view = view;
    request->ahead = kind == READ_AHEAD && size > PAGE_BYTES;
    request->uncached = kind == READ_UNCACHED;
    pthread_mutex_lock(&engine->lock);
    engine->traffic.reads++;
    engine->traffic.asked_ns = engine_now_ns();
    request->epochs_begun = engine->epochs_begun;
    bool current = is_laid_out(engine, request);
    if (current)
        schedule_note_read(engine, view, offset, offset + size, request->uncached);
    engine->views[view].used_ns = engine->traffic.asked_ns;
    bool split = current && request->ahead && waits_in_part(engine, view, offset, size);
    pthread_mutex_unlock(&engine->lock);
    if (split) {
        atomic_store(&request->error, EAGAIN);
        request_end(request, NULL);
        return;
    }
    if (is_direct(engine, piece, size))
        read_direct(engine, request, piece);
    else
        read_assembled(engine, request, offset);
} /* NOLINT(clang-analyzer-unix.Malloc): the request belongs to its waiters now */

void unshard_engine_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, size_t size,
                         unshard_read_done done, void *cookie)
{
    engine_read(engine, view, offset, size, READ_PLAIN, done, cookie);
}

void unshard_engine_read_ahead(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                               size_t size, unshard_read_done done, void *cookie)
{
    engine_read(engine, view, offset, size, READ_AHEAD, done, cookie);
}

void unshard_engine_read_direct(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                                size_t size, unshard_read_done done, void *cookie)
{
    engine_read(engine, view, offset, size, READ_UNCACHED, done, cookie);
}
