/* SPDX-License-Identifier: MIT
 *
 * What the page cache may hold of all models together, with prefetch=open: a budget, of all that
 * is in the plan. A model that is opened is put in the plan as a whole. When that is more than the
 * budget allows, others leave the plan first, and give their pages back: whole models, that which
 * was read longest ago first, and none that somebody has open. Only when there are no such is the
 * plan larger than the budget; then the window (window.c) says how far ahead of its readers a model
 * is fetched, and what they have passed goes (drop_behind.c).
 *
 * So a model is fetched as a whole, once, and pushes none of its own parts out.
 *
 * Pages are taken away by storers, which may wait for readers. Until that is done nothing is
 * fetched unasked: what comes has to have room.
 */
#include "engine/budget.h"

#include "engine/engine_internal.h"

uint64_t budget_of(const struct unshard_engine *engine, uint64_t available)
{
    uint64_t most = available / 4 * 3, asked = engine->options.budget_bytes;
    return asked != 0 && asked < most ? asked : most;
}

/* When somebody read a view of the model last; open: somebody has one open. */
static uint64_t last_use(const struct unshard_engine *engine, uint64_t model, bool *open)
{
    uint64_t last = 0;
    *open = false;
    for (uint32_t i = 0; i < engine->plan.count; i++) {
        const struct view_state *view = &engine->views[engine->plan.views[i]];
        if (view->model != model)
            continue;
        last = view->used_ns > last ? view->used_ns : last;
        *open = *open || view->opened > 0;
    }
    return last;
}

/* The model of the plan that was read longest ago, besides this one; false: all others are open. */
static bool find_oldest(const struct unshard_engine *engine, uint64_t besides, uint64_t *model)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < engine->plan.count; i++) {
        uint64_t candidate = engine->views[engine->plan.views[i]].model;
        bool open;
        uint64_t used = candidate == besides ? UINT64_MAX : last_use(engine, candidate, &open);
        if (used >= oldest || open)
            continue;
        oldest = used;
        *model = candidate;
    }
    return oldest != UINT64_MAX;
}

static void give_up_model(struct unshard_engine *engine, uint64_t model)
{
    for (uint32_t i = engine->plan.count; i-- > 0;) {
        uint32_t view = engine->plan.views[i];
        if (engine->views[view].model != model)
            continue;
        plan_remove(engine, view);
        number_set_add(&engine->agenda.giving_back, view);
    }
    storers_wake(engine);
}

void budget_make_room(struct unshard_engine *engine, uint64_t bytes, uint64_t model,
                      uint64_t available)
{
    uint64_t oldest, budget = budget_of(engine, available);
    while (engine->plan.total_bytes + bytes > budget && find_oldest(engine, model, &oldest))
        give_up_model(engine, oldest);
}

bool budget_is_short(const struct unshard_engine *engine)
{
    return engine->agenda.giving_back.count > 0 || engine->pages.giving_back > 0;
}

/* Its chunks are forgotten before the pages go: what comes meanwhile is there again. */
bool budget_drop_next(struct unshard_engine *engine)
{
    struct number_set *agenda = &engine->agenda.giving_back;
    if (agenda->count == 0 || engine->pages.no_stores)
        return false;
    uint32_t view = agenda->numbers[agenda->count - 1];
    number_set_remove(agenda, view);
    if (engine->views[view].planned) /* it was opened again meanwhile */
        return true;
    view_forget(engine, view);
    engine->pages.bytes_dropped += engine->checkpoint->views[view].size;
    engine->pages.giving_back++;
    engine->pages.stores_running++; /* drained as stores are */
    engine->views[view].storing++;
    pthread_mutex_unlock(&engine->lock);
    held_pages_forget(&engine->held, view);
    if (engine->publisher.drop != NULL)
        engine->publisher.drop(engine->publisher.context, view, 0, 0);
    pthread_mutex_lock(&engine->lock);
    engine->views[view].storing--;
    engine->pages.giving_back--;
    engine->pages.stores_running--;
    pthread_cond_broadcast(&engine->pages.stores_done);
    readers_wake(engine);
    return true;
}
