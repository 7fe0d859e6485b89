/* SPDX-License-Identifier: MIT
 *
 * Pages of the page cache: storing what was read into all views that show it, taking back what was
 * stored, and giving up what readers have passed. Nothing else calls the publisher, but for what
 * follows from a gate (file_gate.c).
 */
#ifndef ENGINE_PAGES_H
#define ENGINE_PAGES_H

#include "engine/chunks.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pages {
    pthread_cond_t stores_done; /* of a file or a view, or the pages of a file are gone */
    unsigned stores_running;
    bool no_stores;
    unsigned giving_back; /* views whose pages are being taken away, see budget.c */
    unsigned drops_due;   /* files whose pages are, see gate.h */
    size_t most_queued;   /* `stores` that wait: with more of them nothing is fetched unasked */
    size_t storing;       /* fetches that storers have */
    uint64_t done_count;  /* ...have had */
    uint64_t done_before; /* the same at the last tick */
    uint64_t chunks_evicted, store_errors, bytes_stored, bytes_dropped;
};

/* Stores what the chunk's buffer holds in all views that want it. No lock held; the
 * caller has a reference. True when it was stored somewhere; *failed is set when the kernel
 * did not take what it was given. May block on readers. */
bool publish_chunk(struct unshard_engine *engine, struct fetch *fetch, bool *failed);
/* Some view wants pages of it. The caller holds engine->lock. */
bool publish_is_wanted(const struct unshard_engine *engine, const struct fetch *fetch);
/* Fills the buffer of a fetch from the page cache; false: it has to be read. No lock
 * held. Blocks for less than a second. */
bool retrieve_chunk(struct unshard_engine *engine, struct fetch *fetch);

#endif
