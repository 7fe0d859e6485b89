/* SPDX-License-Identifier: MIT
 *
 * The plan: the views in the order in which a pipeline loads them, each from its start, as far as
 * the window goes. It is done when a search through all of it finds nothing and nothing waits for a
 * time; whatever makes a chunk fetchable again has it searched anew (schedule_offer).
 */
#include "engine/ahead.h"
#include "engine/budget.h"
#include "engine/engine_internal.h"
#include "engine/search.h"

#include <stdio.h>
#include <stdlib.h>

/* Stores that fail so many times in a row are no accident. */
#define FAILURES_TO_TELL 4U

bool plan_is_followed(const struct unshard_engine *engine)
{
    return engine->options.prefetch == UNSHARD_PREFETCH_ALL ||
           engine->options.prefetch == UNSHARD_PREFETCH_OPEN;
}

bool plan_takes(const struct unshard_engine *engine, uint32_t view)
{
    const struct view *of = &engine->checkpoint->views[view];
    return of->prefetch && of->component != NO_COMPONENT;
}

void plan_add(struct unshard_engine *engine, uint32_t view)
{
    struct plan *plan = &engine->plan;
    if (engine->views[view].planned)
        return;
    engine->views[view].planned = true;
    plan->views[plan->count++] = view;
    plan->total_bytes += engine->checkpoint->views[view].size;
}

void plan_remove(struct unshard_engine *engine, uint32_t view)
{
    struct plan *plan = &engine->plan;
    uint32_t kept = 0;
    if (!engine->views[view].planned)
        return;
    engine->views[view].planned = false;
    for (uint32_t i = 0; i < plan->count; i++)
        if (plan->views[i] != view)
            plan->views[kept++] = plan->views[i];
    plan->count = kept;
    plan->first = 0;
    plan->total_bytes -= engine->checkpoint->views[view].size;
}

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
    bool found = search_find(&search);
    *steps = search.steps;
    state->planned_to = search.offset;
    state->plan_waits = state->plan_waits || search.waits;
    return found ? run_begin(engine, &search, 0) : NULL;
}

static bool is_planned(const struct unshard_engine *engine, uint32_t view)
{
    return engine->views[view].known && !engine->views[view].evicted;
}

#ifdef UNSHARD_CHECK_INVARIANTS
/* What a search finds when it looks at everything. */
static void check_nothing_left(struct unshard_engine *engine)
{
    for (uint32_t i = 0; i < engine->plan.count; i++) {
        uint32_t view = engine->plan.views[i];
        struct search search = {.engine = engine,
                                .by = WANTED_BY_PLAN,
                                .view = view,
                                .end = view_map(engine, view)->size,
                                .steps = SEARCH_STEPS};
        if (is_planned(engine, view) && search_find(&search)) {
            fprintf(stderr, "the plan has lost chunk %u of file %u\n", search.found.next,
                    search.found.file);
            abort();
        }
    }
    engine->plan.search_on = false;
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
    for (uint32_t i = 0; i < engine->plan.count; i++)
        if (is_planned(engine, engine->plan.views[i]) &&
            engine->views[engine->plan.views[i]].plan_waits)
            return false;
    if (runs_have_more(&engine->runs))
        return false;
    check_nothing_left(engine);
    return true;
}

/* Nothing is fetched along the view for now. */
static bool is_put_off(const struct unshard_engine *engine, uint32_t view)
{
    return view_rests(engine, view) || ahead_is_direct(engine, view);
}

/* The next chunk of a run that is for the plan. */
static struct fetch *next_of_plan_run(struct unshard_engine *engine, unsigned self,
                                      bool staged_only)
{
    const struct run *run = &engine->runs.runs[self];
    if (run_is_over(run) || run->stream != 0)
        return NULL;
    if (is_planned(engine, run->view) && !is_put_off(engine, run->view))
        return run_next(engine, self, staged_only);
    run_give_up(engine, self);
    return NULL;
}

struct fetch *plan_next(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    unsigned steps = SEARCH_STEPS;
    bool ended = true; /* all views before this one are searched to their ends */
    struct fetch *running = next_of_plan_run(engine, self, staged_only);
    if (running != NULL)
        return running;
    for (uint32_t i = engine->plan.first; i < engine->plan.count; i++) {
        uint32_t view = engine->plan.views[i];
        if (is_planned(engine, view) && is_put_off(engine, view)) {
            if (engine->views[view].store_failures > FAILURES_TO_TELL)
                engine->plan.paused_reason = "the kernel does not take pages";
            ended = false;
            continue;
        }
        struct fetch *fetch =
            is_planned(engine, view) ? next_of_view(engine, self, view, &steps, staged_only) : NULL;
        if (fetch != NULL) {
            engine->plan.paused_reason = NULL;
            return fetch;
        }
        if (is_planned(engine, view) &&
            engine->views[view].planned_to < view_map(engine, view)->size)
            return NULL;
        engine->plan.first = ended ? i + 1 : engine->plan.first;
    }
    engine->plan.done = ended && plan_is_done(engine);
    return NULL;
}

/* Where passes wait for nothing but a processor, the plan is followed on those that they leave:
 * what readers ask for comes by itself, and the sooner the more has been hashed. */
static bool hashing_needs_processors(const struct unshard_engine *engine)
{
    size_t others =
        engine->queues.reading.count - engine->passes.reading + engine->pages.stores_running;
    return engine->passes.in_memory > 0 && engine->passes.in_memory + others >= engine->processors;
}

bool plan_may(struct unshard_engine *engine)
{
    if (!plan_is_followed(engine) || engine->plan.done)
        return false;
    if (budget_is_short(engine)) {
        engine->plan.paused_reason = "another model gives its memory back";
        return false;
    }
    if (jobs_read_memory(&engine->jobs) && ahead_is_all_direct(engine)) {
        engine->plan.paused_reason = "readers with O_DIRECT go first";
        return false;
    }
    size_t chunks =
        engine->queues.reading.count + engine->queues.stores.count + engine->pages.storing;
    uint64_t in_flight = (uint64_t)chunks * engine->chunk_bytes;
    bool full = engine->window.unconsumed_bytes + in_flight >= engine->window.bytes / 2;
    if (full)
        engine->plan.paused_reason = "the window ahead of readers is full";
    return !full && !hashing_needs_processors(engine);
}
