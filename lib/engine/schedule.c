/* SPDX-License-Identifier: MIT
 *
 * What to fetch without being asked: first what lies ahead of each reader (ahead.c), round about,
 * then the plan (plan.c). Which chunks are to be fetched says `wanted` of their file; a search
 * finds the first of these along a view (search.c).
 *
 * How far a search came is kept, so that the next one need not look at the same extents again:
 * whatever makes a chunk of a file fetchable (schedule_offer) sets it back. What a search passes
 * over only because it can't be fetched now is noted, so that the plan is not taken for done.
 */
#include "engine/ahead.h"
#include "engine/engine_internal.h"
#include "engine/search.h"

#include <sys/mman.h>

/* What nobody has come for in so long is kept no more. */
#define KEEP_NS UINT64_C(15000000000)
/* After a failed store: 0.1 s, 0.2 s, ... 14 minutes. */
#define STORE_REST_NS UINT64_C(100000000)
#define MOST_STORE_DOUBLINGS 13U

struct fetch *schedule_next(struct unshard_engine *engine, unsigned self, bool staged_only)
{
    engine->plan.paused_reason = NULL;
    engine->plan.search_on = false;
    if (engine->options.prefetch == UNSHARD_PREFETCH_OFF || engine->pages.no_stores)
        return NULL;
    struct fetch *fetch = ahead_next(engine, self, staged_only);
    bool plan = fetch == NULL && plan_may(engine);
    if (plan)
        fetch = plan_next(engine, self, staged_only);
    if (fetch == NULL && !staged_only && !engine->plan.search_on)
        fetch = run_next_of_others(engine, self, plan);
    return fetch;
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
    if (failed)
        number_set_add(&engine->agenda.resting, view);
    if (!failed)
        schedule_offer_view(engine, view);
}

void view_note_trial(struct unshard_engine *engine, uint32_t view)
{
    struct view_state *state = &engine->views[view];
    if (state->store_failures == 0)
        return;
    state->store_rest_ns = engine_now_ns() + store_rest_ns(state);
    number_set_add(&engine->agenda.resting, view);
}

bool view_rests(const struct unshard_engine *engine, uint32_t view)
{
    return engine->views[view].store_rest_ns != 0;
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
    engine->plan.first = 0;
    engine->plan.done = false;
    readers_wake(engine);
}

void schedule_offer(struct unshard_engine *engine, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    for (uint32_t i = 0; i < state->views.count; i++)
        search_again(engine, state->views.numbers[i]);
    plan_again(engine);
}

void schedule_dropped(struct unshard_engine *engine, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    for (uint32_t i = 0; i < state->views.count; i++)
        streams_search_again(&engine->streams, state->views.numbers[i]);
}

void schedule_offer_view(struct unshard_engine *engine, uint32_t view)
{
    search_again(engine, view);
    plan_again(engine);
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

static void end_putting_off(struct unshard_engine *engine, uint32_t number, uint64_t now)
{
    struct wanted *wanted = &engine->files[number].wanted;
    bool due = wanted_tick(wanted, now);
    if (!wanted_waits(wanted))
        number_set_remove(&engine->agenda.putting_off, number);
    if (due)
        schedule_offer(engine, number);
}

static void end_rest(struct unshard_engine *engine, uint32_t number, uint64_t now)
{
    struct view_state *view = &engine->views[number];
    if (view->store_rest_ns > now)
        return;
    number_set_remove(&engine->agenda.resting, number);
    if (view->store_rest_ns == 0)
        return;
    view->store_rest_ns = 0;
    schedule_offer_view(engine, number);
}

void schedule_tick(struct unshard_engine *engine, uint64_t now)
{
    end_keeping(engine, now);
    struct stream ended;
    while (streams_end(&engine->streams, UINT32_MAX, now, &ended))
        ahead_give_credit_back(engine, &ended);
    for (uint32_t i = engine->agenda.putting_off.count; i-- > 0;)
        end_putting_off(engine, engine->agenda.putting_off.numbers[i], now);
    for (uint32_t i = engine->agenda.resting.count; i-- > 0;)
        end_rest(engine, engine->agenda.resting.numbers[i], now);
}
