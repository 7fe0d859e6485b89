/* SPDX-License-Identifier: MIT
 *
 * Which chunks of a file have a property, as runs of neighbours: of all chunks of a huge file that
 * is as little as of one. */
#ifndef ENGINE_CHUNK_RUNS_H
#define ENGINE_CHUNK_RUNS_H

#include <stdbool.h>
#include <stdint.h>

struct chunk_run {
    uint32_t first, last;
};

/* Zero-initialised is empty. */
struct chunk_runs {
    struct chunk_run *runs; /* malloc'd; sorted and apart from each other once settled */
    uint32_t count, capacity;
};

/* Adds first..last, in any order. False: no memory. */
bool chunk_runs_add(struct chunk_runs *runs, uint32_t first, uint32_t last);
/* After the last chunk_runs_add, and before anything below. */
void chunk_runs_settle(struct chunk_runs *runs);
/* O(log n). */
bool chunk_runs_have(const struct chunk_runs *runs, uint32_t index);
/* How many chunks they are. */
uint32_t chunk_runs_total(const struct chunk_runs *runs);
void chunk_runs_free(struct chunk_runs *runs);

#endif
