/* SPDX-License-Identifier: MIT
 *
 * What lies ahead of readers: what to fetch for each stream (streams.h), and what readers tell as
 * they pass: that something was consumed, that pages are gone that were stored.
 *
 * The window is credit. The plan has half of it for what no reader has passed; the readers' streams
 * share the other half by how far ahead they reach. A stream that ends (nobody has the view open,
 * nobody has read on for long) gives its credit back: what was fetched for it counts as passed.
 */
#include "engine/ahead.h"
#include "engine/engine_internal.h"
#include "engine/search.h"

/* A stream's read-ahead when memory sets no limit. */
#define STREAM_AHEAD (UINT64_C(512) << 20)
/* Where a READ shows that the kernel has dropped pages, first so much ahead is not believed. */
#define FIRST_STRETCH_CHUNKS 2U

/* ---- what to fetch for them --------------------------------------------------------------------
 */

/* From its first read on. */
static bool at_once(const struct unshard_engine *engine)
{
    return engine->options.prefetch == UNSHARD_PREFETCH_FOLLOW;
}

static bool is_followed(const struct unshard_engine *engine, const struct stream *stream,
                        uint64_t now)
{
    return stream_is_followed(stream, at_once(engine), now) && engine->views[stream->view].known;
}

/* How far ahead of its reader a stream may reach: they share half of the window. */
static uint64_t stream_ahead(const struct unshard_engine *engine)
{
    uint64_t least = 2 * (uint64_t)engine->chunk_bytes;
    unsigned followed = streams_followed(&engine->streams, at_once(engine), false, engine_now_ns());
    uint64_t ahead = engine->window.bytes / 2 / (followed > 0 ? followed : 1);
    return ahead < least ? least : ahead < STREAM_AHEAD ? ahead : STREAM_AHEAD;
}

/* How many chunks ahead of a reader with O_DIRECT may be kept for it. */
static size_t direct_ahead(const struct unshard_engine *engine)
{
    size_t followed = streams_followed(&engine->streams, at_once(engine), true, engine_now_ns());
    return engine->buffers.kept.limit / 4 * 3 / (followed > 0 ? followed : 1) + 1;
}

/* The chunk is neither kept nor on its way, wherever its pages are, and can be fetched. */
static bool is_wanted_directly(const struct unshard_engine *engine, uint32_t number, uint32_t index)
{
    const struct file_state *file = &engine->files[number];
    if (!gate_is_open(&file->gate) || file->stalled > 0 ||
        kept_has(&engine->buffers.kept, number, index))
        return false;
    return file->chunks[index].state == CHUNK_PUBLISHED ||
           wanted_next(&file->wanted, WANTED_BY_READERS, index, index + 1) == index;
}

static struct fetch *fetch_directly(struct unshard_engine *engine, uint32_t number, uint32_t index,
                                    const struct stream *stream)
{
    bool published = engine->files[number].chunks[index].state == CHUNK_PUBLISHED;
    struct fetch *fetch = fetch_create(engine, number, index);
    if (fetch == NULL)
        return NULL;
    fetch->stored = published;
    fetch->uncached = true;
    fetch->stream = stream->number;
    return fetch;
}

/* The next chunk ahead of a reader with O_DIRECT. */
static struct fetch *next_of_direct(struct unshard_engine *engine, struct stream *stream)
{
    const struct extent_map *map = view_map(engine, stream->view);
    uint32_t last_file = EXTENT_LITERAL, last_index = 0;
    uint64_t at = stream->position;
    size_t left = direct_ahead(engine);
    for (unsigned steps = SEARCH_STEPS; at < map->size && steps > 0; steps--) {
        struct extent_piece piece = extent_map_at(map, at, map->size - at);
        uint64_t to_boundary = engine->chunk_bytes - piece.source_offset % engine->chunk_bytes;
        uint32_t file = piece.source;
        uint32_t index = (uint32_t)(piece.source_offset / engine->chunk_bytes);
        bool there = file != EXTENT_LITERAL && piece.source_offset < end_on_disk(engine, file);
        bool another = there && (file != last_file || index != last_index);
        if (another && left-- == 0)
            break;
        if (another && is_wanted_directly(engine, file, index))
            return fetch_directly(engine, file, index, stream);
        last_file = there ? file : last_file;
        last_index = there ? index : last_index;
        at += there && to_boundary < piece.length ? to_boundary : piece.length;
        stream->reached = at > stream->reached ? at : stream->reached;
    }
    return NULL;
}

/* The next chunk ahead of a reader. */
static struct fetch *next_of_stream(struct unshard_engine *engine, unsigned self,
                                    struct stream *stream, uint64_t ahead, bool staged_only)
{
    uint64_t size = view_map(engine, stream->view)->size, end = stream->position + ahead;
    struct search search = {.engine = engine,
                            .by = WANTED_BY_READERS,
                            .self = self,
                            .view = stream->view,
                            .offset = stream->cursor,
                            .end = end < size ? end : size,
                            .steps = SEARCH_STEPS,
                            .staged_only = staged_only};
    bool found = search_find(&search);
    stream_searched(stream, search.offset);
    return found ? run_begin(engine, &search, stream->number) : NULL;
}

/* The next chunk of a run that is for a stream which still wants it. */
static struct fetch *next_of_stream_run(struct unshard_engine *engine, unsigned self, uint64_t now,
                                        bool staged_only)
{
    const struct run *run = &engine->runs.runs[self];
    if (run_is_over(run) || run->stream == 0)
        return NULL;
    const struct stream *stream = streams_by_number(&engine->streams, run->stream);
    if (stream == NULL)
        run_give_up(engine, self);
    else if (is_followed(engine, stream, now) && !view_rests(engine, run->view))
        return run_next(engine, self, staged_only);
    return NULL;
}

struct fetch *ahead_next(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    uint64_t now = engine_now_ns(), ahead = stream_ahead(engine);
    struct fetch *running = next_of_stream_run(engine, self, now, staged_only);
    if (running != NULL)
        return running;
    struct stream *stream;
    uint32_t tried = 0;
    while ((stream = streams_hungriest(&engine->streams, at_once(engine), now, &tried)) != NULL) {
        struct fetch *fetch = NULL;
        if (!engine->views[stream->view].known ||
            (view_rests(engine, stream->view) && !stream->direct))
            continue;
        if (!stream->direct)
            fetch = next_of_stream(engine, self, stream, ahead, staged_only);
        else if (!staged_only)
            fetch = next_of_direct(engine, stream);
        if (fetch != NULL)
            return fetch;
    }
    return NULL;
}

bool ahead_is_direct(const struct unshard_engine *engine, uint32_t view)
{
    uint64_t now = engine_now_ns();
    bool found = false;
    for (size_t i = 0; i < MAX_STREAMS && !found; i++)
        found = engine->streams.all[i].direct && engine->streams.all[i].view == view &&
                is_followed(engine, &engine->streams.all[i], now);
    return found;
}

bool ahead_is_all_direct(const struct unshard_engine *engine)
{
    uint64_t now = engine_now_ns();
    unsigned direct = streams_followed(&engine->streams, at_once(engine), true, now);
    return direct > 0 && direct == streams_followed(&engine->streams, at_once(engine), false, now);
}

/* ---- readers -----------------------------------------------------------------------------------
 */

static void consume_chunk(struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    struct chunk *chunk = &engine->files[file].chunks[index];
    if (chunk->state != CHUNK_PUBLISHED || chunk->consumed)
        return;
    chunk->consumed = true;
    outliving_mark(&engine->files[file], index);
    drop_behind_note(engine, file, index);
    engine->window.unconsumed_bytes -= chunk_length(engine, file, index);
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
        uint64_t last = (piece.source_offset + piece.length - 1) / engine->chunk_bytes;
        for (uint64_t i = piece.source_offset / engine->chunk_bytes; i <= last; i++)
            consume_chunk(engine, piece.source, (uint32_t)i);
    }
    readers_wake(engine);
}

/* The window is limited, or may be when another model is opened. */
static bool credit_counts(const struct unshard_engine *engine)
{
    return engine->window.limited || engine->options.prefetch == UNSHARD_PREFETCH_OPEN;
}

void ahead_give_credit_back(struct unshard_engine *engine, const struct stream *ended)
{
    if (ended->number != 0 && credit_counts(engine) && ended->reached > ended->position)
        consume(engine, ended->view, ended->position, ended->reached);
}

bool schedule_stream_ended(struct unshard_engine *engine, uint32_t number)
{
    return number != 0 && streams_by_number(&engine->streams, number) == NULL;
}

static struct stream *stream_for(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                                 bool direct)
{
    struct stream ended, *stream = streams_of_read(&engine->streams, view, offset, direct, &ended);
    ahead_give_credit_back(engine, &ended);
    return stream;
}

void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                        bool direct)
{
    struct stream *stream = stream_for(engine, view, offset, direct);
    if (credit_counts(engine) && stream->reads > 0 && end > stream->position)
        consume(engine, view, stream->position, end);
    stream_advance(stream, end, engine_now_ns());
}

void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page)
{
    uint64_t span = engine->window.sentinel_pages * PAGE_BYTES, end = (page + 1) * PAGE_BYTES;
    if (span == 0 || (page + 1) % engine->window.sentinel_pages != 0)
        return;
    consume(engine, view, end > span ? end - span : 0, end);
}

void schedule_closed(struct unshard_engine *engine, uint32_t view)
{
    struct stream ended;
    while (streams_end(&engine->streams, view, 0, &ended))
        ahead_give_credit_back(engine, &ended);
}

/* ---- published is a hint -----------------------------------------------------------------------
 */

/* Forgets what of [offset, end) was published before the stream's reader found pages missing, but
 * for the chunk that is being asked for. */
static void forget_stretch(struct unshard_engine *engine, const struct stream *stream,
                           uint64_t offset, uint64_t end, const struct chunk *asked)
{
    const struct extent_map *map = view_map(engine, stream->view);
    end = end < map->size ? end : map->size;
    for (unsigned steps = SEARCH_STEPS; offset < end && steps > 0; steps--) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        offset += piece.length;
        if (piece.source == EXTENT_LITERAL)
            continue;
        uint64_t last = (piece.source_offset + piece.length - 1) / engine->chunk_bytes;
        for (uint64_t i = piece.source_offset / engine->chunk_bytes; i <= last; i++) {
            struct chunk *chunk = &engine->files[piece.source].chunks[i];
            if (chunk == asked || chunk->state != CHUNK_PUBLISHED ||
                chunk->published_tick > stream->doubt_tick)
                continue;
            chunk_forget(engine, piece.source, (uint32_t)i, WANTED_BY_READERS);
            chunk->doubted = true;
        }
    }
}

void schedule_doubt(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                    struct chunk *chunk)
{
    uint64_t most = stream_ahead(engine);
    struct stream *stream = stream_for(engine, view, offset, false);
    struct missing missing = {end, chunk->state == CHUNK_PUBLISHED, chunk->published_tick};
    stream_doubt(stream, &missing, engine_tick(engine, engine_now_ns()),
                 FIRST_STRETCH_CHUNKS * (uint64_t)engine->chunk_bytes, most);
    chunk->doubted = false; /* it tells that once */
    forget_stretch(engine, stream, end, end + stream->stretch, chunk);
    stream->cursor = stream->position;
    readers_wake(engine);
}
