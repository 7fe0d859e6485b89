/* SPDX-License-Identifier: MIT
 *
 * How far the prefetcher may run ahead of readers. A checkpoint that fits in memory is prefetched
 * whole. Of a larger one at most a third of the budget (budget.c: three quarters of what page cache
 * can take) is published ahead, and another third is kept of what readers have passed
 * (drop_behind.c): the kernel then never has a reason to reclaim, and would take what nobody has
 * read yet first.
 */
#include "engine/budget.h"
#include "engine/engine_internal.h"

#define MOST_SENTINEL_BYTES (UINT64_C(256) << 20)
/* Where tensors of several files are interleaved, pages wait for the other half of their bytes: as
 * many as a small share of memory holds. One that is dropped costs two chunks read again. */
#define MOST_HELD_PAGES ((size_t)1 << 18)

static size_t held_pages_for(uint64_t available)
{
    uint64_t pages = available / 64 / HELD_PAGE_COST;
    return pages < LEAST_HELD_PAGES  ? LEAST_HELD_PAGES
           : pages > MOST_HELD_PAGES ? MOST_HELD_PAGES
                                     : (size_t)pages;
}

void window_update(struct unshard_engine *engine, uint64_t available)
{
    uint64_t window = engine->options.window_bytes;
    uint64_t budget = budget_of(engine, available);
    bool fits = engine->plan.total_bytes <= budget;
    if (window == 0)
        window = fits ? UINT64_MAX / 4 : budget / 3;
    uint64_t least = 4 * (uint64_t)engine->chunk_bytes;
    engine->window.bytes = window < least ? least : window;
    engine->window.keep_bytes = budget / 3 * 2;
    engine->staging.budget = available / 4;
    held_pages_set_limit(&engine->held, held_pages_for(available));
    engine->window.limited = engine->window.bytes < engine->plan.total_bytes;
    uint64_t span = engine->window.limited ? engine->window.bytes / 8 : 0;
    if (span > MOST_SENTINEL_BYTES) /* a slow reader is not to be taken for one that went away */
        span = MOST_SENTINEL_BYTES;
    if (engine->options.prefetch == UNSHARD_PREFETCH_FOLLOW && (span == 0 || span > (64U << 20)))
        span = 64U << 20;
    engine->window.sentinel_pages = span / PAGE_BYTES;
}
