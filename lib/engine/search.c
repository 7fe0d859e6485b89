/* SPDX-License-Identifier: MIT
 *
 * Searching along a view for what is wanted, and the runs of neighbouring chunks that readers make
 * of what they find (runs.h).
 *
 * How far a search came is kept by who asked for it: that is a cache of "nothing to fetch before
 * here". What readers have taken as a run lies before it, along each view that shows the file, so a
 * run that is given up sets all of them back.
 */
#include "engine/search.h"
#include "engine/engine_internal.h"

/* What a reader takes at a time. */
#define RUN_BYTES (UINT64_C(8) << 20)

uint64_t end_on_disk(const struct unshard_engine *engine, uint32_t file)
{
    return file_failed_at_start(engine, file) ? engine->checkpoint->files[file].size
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
    if (gate_is_blocked(&file->gate) || end <= piece->source_offset)
        return first + 1;
    *last = (uint32_t)((end - 1) / engine->chunk_bytes);
    uint32_t found = next_free(search, piece->source, first, *last + 1);
    bool available = file->stalled == 0 && gate_is_open(&file->gate);
    search->waits = search->waits || wanted_waits(&file->wanted) || (found <= *last && !available);
    return available ? found : *last + 1;
}

bool search_find(struct search *search)
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
        return !search->staged_only || staging_has(&engine->staging, piece.source, found);
    }
    engine->plan.search_on = engine->plan.search_on || search->offset < search->end;
    return false;
}

void run_give_up(struct unshard_engine *engine, unsigned self)
{
    struct run *run = &engine->runs.runs[self];
    if (run_is_over(run))
        return;
    run->next = run->end;
    schedule_offer(engine, run->file); /* whoever shows the file has passed over it */
}

struct fetch *run_begin(struct unshard_engine *engine, const struct search *search, uint32_t stream)
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
    view_note_trial(engine, run.view);
    if (search->staged_only) /* which has no part in what storage sees */
        return fetch;
    run_give_up(engine, search->self);
    engine->runs.runs[search->self] = run;
    return fetch;
}

static bool may_be_fetched(const struct file_state *file)
{
    return gate_is_open(&file->gate) && file->stalled == 0;
}

struct fetch *run_next(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    struct run *run = &engine->runs.runs[self];
    if (run_is_over(run))
        return NULL;
    const struct file_state *file = &engine->files[run->file];
    enum wanted_by by = run->stream != 0 ? WANTED_BY_READERS : WANTED_BY_PLAN;
    uint32_t index = run->end;
    if (may_be_fetched(file) && run->end <= file->chunk_count)
        index = wanted_next(&file->wanted, by, run->next, run->end);
    if (index < run->end && staged_only && !staging_has(&engine->staging, run->file, index))
        return NULL;
    run->next = index < run->end ? index + 1 : run->end;
    struct fetch *fetch = index < run->end ? fetch_create(engine, run->file, index) : NULL;
    if (fetch != NULL)
        fetch->stream = run->stream;
    return fetch;
}

struct fetch *run_next_of_others(struct unshard_engine *engine, unsigned self, bool plan)
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
