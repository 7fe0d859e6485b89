/* SPDX-License-Identifier: MIT
 *
 * How far the prefetcher may run ahead of readers. A checkpoint that fits in memory is prefetched
 * whole. Of a larger one at most a quarter of what page cache can take is published ahead, and
 * another quarter is kept of what readers have passed (drop_behind.c): the kernel then never has a
 * reason to reclaim, and would take what nobody has read yet first.
 */
#include "prefetch/engine_internal.h"

void window_update(struct unshard_engine *engine, uint64_t available)
{
    uint64_t window = engine->options.window_bytes;
    bool fits = engine->total_bytes <= available / 4 * 3;
    if (window == 0)
        window = fits ? UINT64_MAX / 4 : available / 4;
    uint64_t least = 4 * (uint64_t)engine->chunk_bytes;
    engine->window_bytes = window < least ? least : window;
    engine->keep_bytes = available / 2;
    engine->staging_budget = available / 4;
    engine->window_limited = engine->window_bytes < engine->total_bytes;
    uint64_t span = engine->window_limited ? engine->window_bytes / 8 : 0;
    if (engine->options.prefetch == UNSHARD_PREFETCH_FOLLOW && (span == 0 || span > (64U << 20)))
        span = 64U << 20;
    engine->sentinel_pages = span / PAGE_BYTES;
}
