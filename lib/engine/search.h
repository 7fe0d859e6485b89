/* SPDX-License-Identifier: MIT
 *
 * Searching along views for chunks that are wanted, and the runs that come of it (runs.h). The
 * scheduler's: the caller holds engine->lock, nothing blocks.
 */
#ifndef ENGINE_SEARCH_H
#define ENGINE_SEARCH_H

#include "engine/chunks.h"
#include "engine/runs.h"
#include "engine/wanted.h"

#include <stdbool.h>
#include <stdint.h>

/* Steps a search may take under the lock before others have their turn. */
#define SEARCH_STEPS 4096

/* A search along a view for the first chunk that is wanted. */
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

/* Finds the first chunk of [offset, end) that is wanted, can be fetched, and that no other reader
 * is about to fetch, and moves offset to it: search->found begins there. False with offset == end
 * when there is none, or earlier when steps ran out or what is to be fetched is not staged. */
bool search_find(struct search *search);
/* Of a file that was too short from the start, what is missing is not there to be fetched. */
uint64_t end_on_disk(const struct unshard_engine *engine, uint32_t file);
/* Fetches what a search has found, and makes what lies behind it the reader's run. stream: number
 * of the one that it is for, or 0. The fetch as of fetch_create, or NULL. */
struct fetch *run_begin(struct unshard_engine *engine, const struct search *search,
                        uint32_t stream);
/* The next chunk of the reader's run; NULL: it is over, or the rest is not staged. */
struct fetch *run_next(struct unshard_engine *engine, unsigned self, bool staged_only);
/* The reader goes on with something else: what is left of its run is to be found again. */
void run_give_up(struct unshard_engine *engine, unsigned self);
/* Nothing is left but what others are about to fetch: the last of that. plan: also of what the plan
 * wants. */
struct fetch *run_next_of_others(struct unshard_engine *engine, unsigned self, bool plan);

#endif
