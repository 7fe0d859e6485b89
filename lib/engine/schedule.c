/* SPDX-License-Identifier: MIT
 *
 * What to fetch without being asked: first what lies ahead of each reader, round about, then the
 * plan: the views in the order in which a pipeline loads them, each from its start. Which chunks
 * are to be fetched says `wanted` of their file; a search finds the first of these along a view.
 *
 * How far a search came is kept, so that the next one need not look at the same extents again: that
 * is a cache of "nothing to fetch before here", and whatever makes a chunk of a file fetchable
 * (schedule_offer) sets it back. What a search passes over only because it can't be fetched now is
 * noted, so that the plan is not taken for done.
 *
 * Each reader of storage takes a run of neighbouring chunks (runs.h), which others leave to it.
 *
 * The window is credit. The plan has half of it for what no reader has passed; the readers' streams
 * share the other half by how far ahead they reach. A stream that ends (nobody has the view open,
 * nobody has read on for long) gives its credit back: what was fetched for it counts as passed.
 */
#include "engine/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* What a reader takes at a time. */
#define RUN_BYTES (UINT64_C(8) << 20)
/* Steps a search may take under the lock before others have their turn. */
#define SEARCH_STEPS 4096
/* A stream's read-ahead when memory sets no limit. */
#define STREAM_AHEAD (UINT64_C(512) << 20)
/* Where a READ shows that the kernel has dropped pages, first so much ahead is not believed; twice
 * as much with each chunk that confirms it. */
#define FIRST_STRETCH_CHUNKS 8U
/* What nobody has come for in so long is kept no more. */
#define KEEP_NS UINT64_C(15000000000)
/* After a failed store: 0.1 s, 0.2 s, ... 14 minutes. */
#define STORE_REST_NS UINT64_C(100000000)
#define MOST_STORE_DOUBLINGS 13U
/* So many in a row, and it is no accident. */
#define FAILURES_TO_TELL 4U

struct search {
    struct unshard_engine *engine;
    enum wanted_by by;
    unsigned self; /* the reader that searches */
    uint32_t view;
    uint64_t offset, end;
    unsigned steps;
    bool staged_only; /* ends at what would have to be read from storage */
    bool waits;       /* passed over something that can't be fetched now and will be */
    struct run found; /* what is to be fetched first, and what lies behind it in the same piece */
};

/* Of a file that was too short from the start, what is missing is not there to be fetched. */
static uint64_t end_on_disk(const struct unshard_engine *engine, uint32_t file)
{
    return engine->files[file].failed_at_start ? engine->checkpoint->files[file].size
                                               : engine->files[file].size;
}

/* The first chunk of [first, end) that is wanted and that nobody else is about to fetch. */
static uint32_t next_free(const struct search *search, uint32_t number, uint32_t first,
                          uint32_t end)
{
    const struct unshard_engine *engine = search->engine;
    const struct wanted *wanted = &engine->files[number].wanted;
    bool for_stream = search->by == WANTED_BY_READERS;
    for (;;) {
        uint32_t found = wanted_next(wanted, search->by, first, end);
        first = runs_skip(&engine->runs, search->self, for_stream, number, found, end);
        if (first == found)
            return found;
    }
}

/* The first chunk of a piece to fetch, or one behind its last; notes what waits. */
static uint32_t wanted_in_piece(struct search *search, const struct extent_piece *piece,
                                uint32_t *last)
{
    const struct unshard_engine *engine = search->engine;
    const struct file_state *file = &engine->files[piece->source];
    uint64_t disk = end_on_disk(engine, piece->source), end = piece->source_offset + piece->length;
    uint32_t first = (uint32_t)(piece->source_offset / engine->chunk_bytes);
    end = end < disk ? end : disk;
    *last = first;
    if (file->blocked || end <= piece->source_offset)
        return first + 1;
    *last = (uint32_t)((end - 1) / engine->chunk_bytes);
    uint32_t found = next_free(search, piece->source, first, *last + 1);
    bool available = file->stalled == 0 && !file->closed;
    search->waits = search->waits || wanted_waits(&file->wanted) || (found <= *last && !available);
    return available ? found : *last + 1;
}

/* Finds the first chunk of [offset, end) that is wanted and can be fetched, and moves offset to it.
 * False with offset == end when there is none, or earlier when steps ran out or what is to be
 * fetched is not staged. */
static bool find_wanted(struct search *search)
{
    struct unshard_engine *engine = search->engine;
    const struct extent_map *map = view_map(engine, search->view);
    for (; search->offset < search->end && search->steps > 0; search->steps--) {
        struct extent_piece piece =
            extent_map_at(map, search->offset, search->end - search->offset);
        uint32_t last = 0, found = 1;
        if (piece.source != EXTENT_LITERAL)
            found = wanted_in_piece(search, &piece, &last);
        if (found > last) {
            search->offset += piece.length;
            continue;
        }
        uint64_t start = (uint64_t)found * engine->chunk_bytes;
        if (start > piece.source_offset)
            search->offset += start - piece.source_offset;
        search->found = (struct run){.file = piece.source,
                                     .next = found,
                                     .end = last + 1,
                                     .view = search->view,
                                     .offset = search->offset};
        return !search->staged_only || engine->files[piece.source].chunks[found].staged;
    }
    engine->search_on = engine->search_on || search->offset < search->end;
    return false;
}

/* ---- stores that fail --------------------------------------------------------------------------
 */

static uint64_t store_rest_ns(const struct view_state *view)
{
    unsigned doublings = view->store_failures - 1;
    return STORE_REST_NS << (doublings < MOST_STORE_DOUBLINGS ? doublings : MOST_STORE_DOUBLINGS);
}

void schedule_note_store(struct unshard_engine *engine, uint32_t view, bool failed)
{
    struct view_state *state = &engine->views[view];
    if (!failed && state->store_failures == 0)
        return;
    state->store_failures = failed ? state->store_failures + 1 : 0;
    state->store_rest_ns = failed ? engine_now_ns() + store_rest_ns(state) : 0;
    if (!failed)
        schedule_offer_view(engine, view);
}

/* A chunk is fetched for a view whose stores have failed: it tells whether they still do. */
static void note_trial(struct unshard_engine *engine, uint32_t view)
{
    struct view_state *state = &engine->views[view];
    if (state->store_failures > 0)
        state->store_rest_ns = engine_now_ns() + store_rest_ns(state);
}

/* Nothing is fetched unasked for its pages for now. */
static bool rests(const struct unshard_engine *engine, uint32_t view)
{
    return engine->views[view].store_rest_ns != 0;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

/* The reader goes on with something else: what is left of its run is to be found again. */
static void give_up_run(struct unshard_engine *engine, unsigned self)
{
    struct run *run = &engine->runs.runs[self];
    struct view_state *view = &engine->views[run->view];
    if (run_is_over(run))
        return;
    run->next = run->end;
    if (view->planned_to > run->offset)
        view->planned_to = run->offset;
    streams_search_again(&engine->streams, run->view);
    engine->plan_first = 0;
    engine->plan_done = false;
}

/* Fetches what a search has found, and makes what lies behind it the reader's run. */
static struct fetch *begin_run(struct unshard_engine *engine, const struct search *search,
                               uint32_t stream)
{
    struct run run = search->found;
    uint32_t most = (uint32_t)(RUN_BYTES / engine->chunk_bytes);
    bool for_stream = search->by == WANTED_BY_READERS;
    if (run.end - run.next > most + (most == 0))
        run.end = run.next + most + (most == 0);
    for (uint32_t i = run.next + 1; i < run.end; i++) /* it ends where another one begins */
        if (runs_skip(&engine->runs, search->self, for_stream, run.file, i, i + 1) != i)
            run.end = i;
    struct fetch *fetch = fetch_create(engine, run.file, run.next);
    if (fetch == NULL)
        return NULL;
    run.stream = fetch->stream = stream;
    run.next++;
    note_trial(engine, run.view);
    if (search->staged_only) /* which has no part in what storage sees */
        return fetch;
    give_up_run(engine, search->self);
    engine->runs.runs[search->self] = run;
    return fetch;
}

static bool may_be_fetched(const struct file_state *file)
{
    return !file->blocked && !file->closed && file->stalled == 0;
}

/* The next chunk of the reader's run; NULL: it is over, or the rest is not staged. */
static struct fetch *next_of_run(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    struct run *run = &engine->runs.runs[self];
    if (run_is_over(run))
        return NULL;
    const struct file_state *file = &engine->files[run->file];
    enum wanted_by by = run->stream != 0 ? WANTED_BY_READERS : WANTED_BY_PLAN;
    uint32_t index = run->end;
    if (may_be_fetched(file) && run->end <= file->chunk_count)
        index = wanted_next(&file->wanted, by, run->next, run->end);
    if (index < run->end && staged_only && !file->chunks[index].staged)
        return NULL;
    run->next = index < run->end ? index + 1 : run->end;
    struct fetch *fetch = index < run->end ? fetch_create(engine, run->file, index) : NULL;
    if (fetch != NULL)
        fetch->stream = run->stream;
    return fetch;
}

/* Nothing is left but what others are about to fetch. plan: also of what the plan wants. */
static struct fetch *next_of_others(struct unshard_engine *engine, unsigned self, bool plan)
{
    struct run run;
    while (runs_steal(&engine->runs, self, plan, &run)) {
        const struct file_state *file = &engine->files[run.file];
        enum wanted_by by = run.stream != 0 ? WANTED_BY_READERS : WANTED_BY_PLAN;
        bool wanted = may_be_fetched(file) && run.next < file->chunk_count &&
                      wanted_next(&file->wanted, by, run.next, run.next + 1) == run.next;
        if (!wanted)
            continue;
        struct fetch *fetch = fetch_create(engine, run.file, run.next);
        if (fetch != NULL)
            fetch->stream = run.stream;
        return fetch;
    }
    return NULL;
}

/* ---- what lies ahead of readers ----------------------------------------------------------------
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
    uint64_t ahead = engine->window_bytes / 2 / (followed > 0 ? followed : 1);
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
    if (file->blocked || file->closed || file->stalled > 0 ||
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
    bool found = find_wanted(&search);
    stream_searched(stream, search.offset);
    return found ? begin_run(engine, &search, stream->number) : NULL;
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
        give_up_run(engine, self);
    else if (is_followed(engine, stream, now) && !rests(engine, run->view))
        return next_of_run(engine, self, staged_only);
    return NULL;
}

static struct fetch *next_of_streams(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    uint64_t now = engine_now_ns(), ahead = stream_ahead(engine);
    struct fetch *running = next_of_stream_run(engine, self, now, staged_only);
    if (running != NULL)
        return running;
    for (size_t i = 0; i < MAX_STREAMS; i++) {
        struct stream *stream = &engine->streams.all[i];
        if (!is_followed(engine, stream, now) || (rests(engine, stream->view) && !stream->direct))
            continue;
        struct fetch *fetch = NULL;
        if (!stream->direct)
            fetch = next_of_stream(engine, self, stream, ahead, staged_only);
        else if (!staged_only)
            fetch = next_of_direct(engine, stream);
        if (fetch != NULL)
            return fetch;
    }
    return NULL;
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

/* The next chunk of one view of the plan. *steps as of a search. */
static struct fetch *next_of_view(struct unshard_engine *engine, unsigned self, uint32_t view,
                                  unsigned *steps, bool staged_only)
{
    struct view_state *state = &engine->views[view];
    struct search search = {.engine = engine,
                            .by = WANTED_BY_PLAN,
                            .self = self,
                            .view = view,
                            .offset = state->planned_to,
                            .end = view_map(engine, view)->size,
                            .steps = *steps,
                            .staged_only = staged_only};
    bool found = find_wanted(&search);
    *steps = search.steps;
    state->planned_to = search.offset;
    state->plan_waits = state->plan_waits || search.waits;
    return found ? begin_run(engine, &search, 0) : NULL;
}

/* A reader with O_DIRECT goes through it: what the plan fetched besides would not be there for it.
 */
static bool is_read_directly(const struct unshard_engine *engine, uint32_t view)
{
    uint64_t now = engine_now_ns();
    bool found = false;
    for (size_t i = 0; i < MAX_STREAMS && !found; i++)
        found = engine->streams.all[i].direct && engine->streams.all[i].view == view &&
                is_followed(engine, &engine->streams.all[i], now);
    return found;
}

static bool is_planned(const struct unshard_engine *engine, uint32_t view)
{
    return engine->views[view].known && !engine->views[view].evicted;
}

#ifdef UNSHARD_CHECK_INVARIANTS
/* What a search finds when it looks at everything. */
static void check_nothing_left(struct unshard_engine *engine)
{
    for (uint32_t i = 0; i < engine->plan_count; i++) {
        uint32_t view = engine->plan[i];
        struct search search = {.engine = engine,
                                .by = WANTED_BY_PLAN,
                                .view = view,
                                .end = view_map(engine, view)->size,
                                .steps = SEARCH_STEPS};
        if (is_planned(engine, view) && find_wanted(&search)) {
            fprintf(stderr, "the plan has lost chunk %u of file %u\n", search.found.next,
                    search.found.file);
            abort();
        }
    }
    engine->search_on = false;
}
#else
static void check_nothing_left(struct unshard_engine *engine)
{
    (void)engine;
}
#endif

/* The plan has been searched to its end: whether more will come of it by itself. */
static bool plan_is_done(struct unshard_engine *engine)
{
    for (uint32_t i = 0; i < engine->plan_count; i++)
        if (is_planned(engine, engine->plan[i]) && engine->views[engine->plan[i]].plan_waits)
            return false;
    if (runs_have_more(&engine->runs))
        return false;
    check_nothing_left(engine);
    return true;
}

/* Nothing is fetched along the view for now. */
static bool is_put_off(const struct unshard_engine *engine, uint32_t view)
{
    return rests(engine, view) || is_read_directly(engine, view);
}

/* The next chunk of a run that is for the plan. */
static struct fetch *next_of_plan_run(struct unshard_engine *engine, unsigned self,
                                      bool staged_only)
{
    const struct run *run = &engine->runs.runs[self];
    if (run_is_over(run) || run->stream != 0)
        return NULL;
    if (is_planned(engine, run->view) && !is_put_off(engine, run->view))
        return next_of_run(engine, self, staged_only);
    give_up_run(engine, self);
    return NULL;
}

static struct fetch *next_of_plan(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    unsigned steps = SEARCH_STEPS;
    bool ended = true; /* all views before this one are searched to their ends */
    if (engine->keep_first_ns == 0)
        engine->keep_first_ns = engine_now_ns() + KEEP_NS;
    struct fetch *running = next_of_plan_run(engine, self, staged_only);
    if (running != NULL)
        return running;
    for (uint32_t i = engine->plan_first; i < engine->plan_count; i++) {
        uint32_t view = engine->plan[i];
        if (is_planned(engine, view) && is_put_off(engine, view)) {
            if (engine->views[view].store_failures > FAILURES_TO_TELL)
                engine->paused_reason = "the kernel does not take pages";
            ended = false;
            continue;
        }
        struct fetch *fetch =
            is_planned(engine, view) ? next_of_view(engine, self, view, &steps, staged_only) : NULL;
        if (fetch != NULL) {
            engine->paused_reason = NULL;
            return fetch;
        }
        if (is_planned(engine, view) &&
            engine->views[view].planned_to < view_map(engine, view)->size)
            return NULL;
        engine->plan_first = ended ? i + 1 : engine->plan_first;
    }
    engine->plan_done = ended && plan_is_done(engine);
    return NULL;
}

/* Where passes wait for nothing but a processor, the plan is followed on those that they leave:
 * what readers ask for comes by itself, and the sooner the more has been hashed. */
static bool hashing_needs_processors(const struct unshard_engine *engine)
{
    unsigned others = engine->reading_count - engine->passes_reading + engine->stores_running;
    return engine->passes_in_memory > 0 && engine->passes_in_memory + others >= engine->processors;
}

/* The plan may go on. */
static bool plan_may(struct unshard_engine *engine)
{
    if (engine->options.prefetch != UNSHARD_PREFETCH_ALL || engine->plan_done)
        return false;
    uint64_t in_flight = (uint64_t)engine->reading_count * engine->chunk_bytes;
    bool full = engine->unconsumed_bytes + in_flight >= engine->window_bytes / 2;
    if (full)
        engine->paused_reason = "the window ahead of readers is full";
    return !full && !hashing_needs_processors(engine);
}

struct fetch *schedule_next(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    engine->paused_reason = NULL;
    engine->search_on = false;
    if (engine->options.prefetch == UNSHARD_PREFETCH_OFF || engine->no_stores)
        return NULL;
    struct fetch *fetch = next_of_streams(engine, self, staged_only);
    bool plan = fetch == NULL && plan_may(engine);
    if (plan)
        fetch = next_of_plan(engine, self, staged_only);
    if (fetch == NULL && !staged_only && !engine->search_on)
        fetch = next_of_others(engine, self, plan);
    return fetch;
}

/* ---- what makes a search look again ------------------------------------------------------------
 */

static void search_again(struct unshard_engine *engine, uint32_t view)
{
    engine->views[view].planned_to = 0;
    engine->views[view].plan_waits = false;
    streams_search_again(&engine->streams, view);
}

static void plan_again(struct unshard_engine *engine)
{
    engine->plan_first = 0;
    engine->plan_done = false;
    readers_wake(engine);
}

void schedule_offer(struct unshard_engine *engine, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    for (uint32_t i = 0; i < state->view_count; i++)
        search_again(engine, engine->file_views[state->first_view + i]);
    plan_again(engine);
}

void schedule_dropped(struct unshard_engine *engine, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    for (uint32_t i = 0; i < state->view_count; i++)
        streams_search_again(&engine->streams, engine->file_views[state->first_view + i]);
}

void schedule_offer_view(struct unshard_engine *engine, uint32_t view)
{
    search_again(engine, view);
    plan_again(engine);
}

/* ---- readers -----------------------------------------------------------------------------------
 */

static void consume_chunk(struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    struct chunk *chunk = &engine->files[file].chunks[index];
    if (chunk->state != CHUNK_PUBLISHED || chunk->consumed)
        return;
    chunk->consumed = true;
    drop_behind_note(engine, file, index);
    engine->unconsumed_bytes -= chunk_length(engine, file, index);
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

/* A stream has ended: what was fetched for it counts as passed. */
static void give_credit_back(struct unshard_engine *engine, const struct stream *ended)
{
    if (ended->number != 0 && engine->window_limited && ended->reached > ended->position)
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
    give_credit_back(engine, &ended);
    return stream;
}

void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                        bool direct)
{
    struct stream *stream = stream_for(engine, view, offset, direct);
    if (engine->window_limited && stream->reads > 0 && end > stream->position)
        consume(engine, view, stream->position, end);
    stream_advance(stream, end, engine_now_ns());
}

void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page)
{
    uint64_t span = engine->sentinel_pages * PAGE_BYTES, end = (page + 1) * PAGE_BYTES;
    if (span == 0 || (page + 1) % engine->sentinel_pages != 0)
        return;
    consume(engine, view, end > span ? end - span : 0, end);
}

void schedule_closed(struct unshard_engine *engine, uint32_t view)
{
    struct stream ended;
    while (streams_end(&engine->streams, view, 0, &ended))
        give_credit_back(engine, &ended);
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
    stream_doubt(stream, chunk->state == CHUNK_PUBLISHED, chunk->published_tick,
                 engine_tick(engine, engine_now_ns()),
                 FIRST_STRETCH_CHUNKS * (uint64_t)engine->chunk_bytes, most);
    chunk->doubted = false; /* it tells that once */
    forget_stretch(engine, stream, end, end + stream->stretch, chunk);
    stream->cursor = stream->position;
    readers_wake(engine);
}

/* ---- the housekeeper's share -------------------------------------------------------------------
 */

/* Gives buffers back that nobody has come for, with their memory. Caller holds engine->lock, which
 * is released meanwhile. */
static void end_keeping(struct unshard_engine *engine, uint64_t now)
{
    struct kept_chunk kept;
    while (now > KEEP_NS && kept_take_oldest(&engine->buffers.kept, now - KEEP_NS, &kept)) {
        pthread_mutex_unlock(&engine->lock);
        madvise(kept.buffer, engine->chunk_bytes, MADV_DONTNEED);
        pthread_mutex_lock(&engine->lock);
        buffers_give(&engine->buffers, kept.buffer);
    }
}

void schedule_tick(struct unshard_engine *engine, uint64_t now)
{
    end_keeping(engine, now);
    struct stream ended;
    while (streams_end(&engine->streams, UINT32_MAX, now, &ended))
        give_credit_back(engine, &ended);
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++)
        if (wanted_tick(&engine->files[i].wanted, now))
            schedule_offer(engine, i);
    for (uint32_t v = 0; v < engine->checkpoint->view_count; v++)
        if (engine->views[v].store_rest_ns != 0 && engine->views[v].store_rest_ns <= now) {
            engine->views[v].store_rest_ns = 0;
            schedule_offer_view(engine, v);
        }
}
