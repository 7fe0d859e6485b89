/* SPDX-License-Identifier: MIT
 *
 * What to fetch without being asked: first what lies ahead of each reader, round about, then the
 * plan: the views in the order in which a pipeline loads them, each from its start. The plan stays
 * within half of the window, so that nothing is published that would be evicted before it is read
 * and a plan that nobody follows leaves room for readers.
 */
#include "prefetch/engine_internal.h"

#include <string.h>

/* Steps a search may take under the lock before it comes back later. */
#define SEARCH_STEPS 4096
/* A read this far from where a stream was still continues it. */
#define STREAM_SLACK (UINT64_C(8) << 20)
/* Nobody has read on for so long: a stream counts no more. */
#define STREAM_IDLE_NS UINT64_C(5000000000)
/* A stream's read-ahead when memory sets no limit. */
#define STREAM_AHEAD (UINT64_C(512) << 20)

struct search {
    struct unshard_engine *engine;
    uint32_t view;
    uint64_t offset, end;
    unsigned steps;
    bool staged_only; /* ends at what would have to be read from storage */
};

/* Of a file that was too short from the start, what is missing is not there to be fetched. */
static uint64_t end_on_disk(const struct unshard_engine *engine, uint32_t file)
{
    return engine->files[file].failed_at_start ? engine->checkpoint->files[file].size
                                               : engine->files[file].size;
}

/* Finds the first chunk of [offset, end) that nobody has fetched, and moves offset behind it. True
 * when there is one; false with offset == end when there is none, or earlier when steps ran out or
 * only what is not staged is left to fetch. */
static bool find_absent(struct search *search, uint32_t *file, uint32_t *index)
{
    struct unshard_engine *engine = search->engine;
    const struct extent_map *map = view_map(engine, search->view);
    for (; search->offset < search->end && search->steps > 0; search->steps--) {
        struct extent_piece piece = extent_map_at(map, search->offset, UINT64_MAX);
        if (piece.source == EXTENT_LITERAL ||
            piece.source_offset >= end_on_disk(engine, piece.source)) {
            search->offset += piece.length;
            continue;
        }
        uint64_t to_boundary = engine->chunk_bytes - piece.source_offset % engine->chunk_bytes;
        uint64_t advance = to_boundary < piece.length ? to_boundary : piece.length;
        struct file_state *state = &engine->files[piece.source];
        *file = piece.source;
        *index = (uint32_t)(piece.source_offset / engine->chunk_bytes);
        const struct chunk *chunk = &state->chunks[*index];
        bool wanted = chunk->state == CHUNK_ABSENT && state->stalled == 0 && !state->closed &&
                      !state->blocked;
        if (wanted && search->staged_only && !chunk->staged)
            return false;
        search->offset += advance;
        if (wanted)
            return true;
    }
    return false;
}

static uint64_t stream_ahead(const struct unshard_engine *engine)
{
    uint64_t ahead = engine->window_bytes / 2;
    return ahead < STREAM_AHEAD ? ahead : STREAM_AHEAD;
}

/* The next chunk ahead of a reader. */
static struct fetch *next_of_stream(struct unshard_engine *engine, struct reader_stream *stream,
                                    bool staged_only)
{
    const struct extent_map *map = view_map(engine, stream->view);
    uint64_t end = stream->position + stream_ahead(engine);
    if (stream->cursor < stream->position)
        stream->cursor = stream->position;
    struct search search = {engine,         stream->view,
                            stream->cursor, end < map->size ? end : map->size,
                            SEARCH_STEPS,   staged_only};
    uint32_t file, index;
    bool found = find_absent(&search, &file, &index);
    stream->cursor = search.offset;
    return found ? fetch_create(engine, file, index) : NULL;
}

static struct fetch *next_of_streams(struct unshard_engine *engine, bool staged_only)
{
    uint64_t now = engine_now_ns();
    unsigned needed = engine->options.prefetch == UNSHARD_PREFETCH_FOLLOW ? 1 : 2;
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        struct reader_stream *stream = &engine->streams[i];
        if (stream->hits < needed || now - stream->last_ns > STREAM_IDLE_NS ||
            !engine->views[stream->view].known)
            continue;
        struct fetch *fetch = next_of_stream(engine, stream, staged_only);
        if (fetch != NULL)
            return fetch;
    }
    return NULL;
}

/* The next chunk of the plan. */
static struct fetch *next_of_plan(struct unshard_engine *engine, bool staged_only)
{
    struct plan_cursor *cursor = &engine->cursor;
    unsigned steps = SEARCH_STEPS;
    while (cursor->position < engine->plan_count && steps > 0) {
        uint32_t view = engine->plan[cursor->position];
        uint64_t size = view_map(engine, view)->size;
        struct search search = {engine, view, cursor->offset, size, steps, staged_only};
        uint32_t file, index;
        if (!engine->views[view].known || engine->views[view].evicted)
            search.offset = size;
        bool found = find_absent(&search, &file, &index);
        cursor->offset = search.offset;
        steps = search.steps;
        if (found)
            return fetch_create(engine, file, index);
        if (search.offset < size)
            break;
        cursor->position++;
        cursor->offset = 0;
    }
    engine->plan_done = cursor->position >= engine->plan_count;
    return NULL;
}

/* Where passes wait for nothing but a processor, the plan is followed on those that they leave:
 * what readers ask for comes by itself, and the sooner the more has been hashed. */
static bool hashing_needs_processors(const struct unshard_engine *engine)
{
    unsigned others = engine->reading_count - engine->passes_reading + engine->stores_running;
    return engine->passes_in_memory > 0 && engine->passes_in_memory + others >= engine->processors;
}

struct fetch *schedule_next(struct unshard_engine *engine, bool staged_only)
{
    engine->paused_reason = NULL;
    if (engine->options.prefetch == UNSHARD_PREFETCH_OFF || engine->no_stores)
        return NULL;
    uint64_t in_flight = (uint64_t)engine->reading_count * engine->chunk_bytes;
    uint64_t ahead = engine->unconsumed_bytes + in_flight;
    struct fetch *fetch = NULL;
    if (!engine->window_limited || ahead < engine->window_bytes)
        fetch = next_of_streams(engine, staged_only);
    if (fetch != NULL || engine->options.prefetch != UNSHARD_PREFETCH_ALL || engine->plan_done)
        return fetch;
    if (ahead >= engine->window_bytes / 2) {
        engine->paused_reason = "the window ahead of readers is full";
        return NULL;
    }
    if (hashing_needs_processors(engine))
        return NULL;
    return next_of_plan(engine, staged_only);
}

void schedule_restart(struct unshard_engine *engine)
{
    engine->cursor = (struct plan_cursor){0, 0};
    engine->plan_done = false;
    engine->plan_round++;
    for (size_t i = 0; i < MAX_STREAMS; i++)
        engine->streams[i].cursor = engine->streams[i].position;
    if (engine->idle_workers > 0)
        pthread_cond_broadcast(&engine->work);
}

/* Counts the published chunks of [offset, end) as passed. */
static void consume(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end)
{
    const struct extent_map *map = view_map(engine, view);
    for (unsigned steps = SEARCH_STEPS; offset < end && steps > 0; steps--) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        offset += piece.length;
        if (piece.source == EXTENT_LITERAL)
            continue;
        struct file_state *file = &engine->files[piece.source];
        uint64_t last = (piece.source_offset + piece.length - 1) / engine->chunk_bytes;
        for (uint64_t i = piece.source_offset / engine->chunk_bytes; i <= last; i++) {
            struct chunk *chunk = &file->chunks[i];
            if (chunk->state != CHUNK_PUBLISHED || chunk->consumed)
                continue;
            chunk->consumed = true;
            drop_behind_note(engine, piece.source, (uint32_t)i);
            engine->unconsumed_bytes -= chunk_length(engine, piece.source, (uint32_t)i);
        }
    }
    if (engine->idle_workers > 0)
        pthread_cond_broadcast(&engine->work);
}

/* The stream that a read at offset continues, or the one that was silent for longest, emptied. */
static struct reader_stream *stream_for(struct unshard_engine *engine, uint32_t view,
                                        uint64_t offset)
{
    struct reader_stream *oldest = &engine->streams[0];
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        struct reader_stream *stream = &engine->streams[i];
        if (stream->hits > 0 && stream->view == view && offset + STREAM_SLACK >= stream->position &&
            offset <= stream->cursor + STREAM_SLACK)
            return stream;
        if (stream->last_ns < oldest->last_ns)
            oldest = stream;
    }
    *oldest = (struct reader_stream){.position = offset, .cursor = offset, .view = view};
    return oldest;
}

void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end)
{
    struct reader_stream *stream = stream_for(engine, view, offset);
    if (engine->window_limited && stream->hits > 0 && end > stream->position)
        consume(engine, view, stream->position, end);
    if (end > stream->position)
        stream->position = end;
    stream->hits++;
    stream->last_ns = engine_now_ns();
}

void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page)
{
    uint64_t span = engine->sentinel_pages * PAGE_BYTES, end = (page + 1) * PAGE_BYTES;
    if (span == 0 || (page + 1) % engine->sentinel_pages != 0)
        return;
    consume(engine, view, end > span ? end - span : 0, end);
}
