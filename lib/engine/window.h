/* SPDX-License-Identifier: MIT
 *
 * How much may be in the page cache: of what no reader has passed (the window, credit of the plan),
 * and in all, where memory is smaller than the checkpoint (window.c, drop_behind.c).
 */
#ifndef ENGINE_WINDOW_H
#define ENGINE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unshard_engine;

struct passed_chunk {
    uint32_t file, index;
};

/* Chunks that readers have passed, oldest first. */
struct passed_ring {
    struct passed_chunk *chunks;
    size_t first, count, capacity;
};

struct window {
    uint64_t bytes;            /* how much may be published that no reader has passed */
    bool limited;              /* less than the checkpoint */
    uint64_t sentinel_pages;   /* every so many pages of a view one is held back; 0: none */
    uint64_t unconsumed_bytes; /* published and not passed by a reader */
    uint64_t published_bytes;  /* in PUBLISHED chunks */
    uint64_t keep_bytes;       /* as much of that may stay; what was passed goes first */
    struct passed_ring passed;
};

/* unshard_available_memory as it was at most a tenth of a second ago: asking takes as long as
 * opening twenty files, and a thousand components may come in a row. Thread-safe. */
uint64_t available_memory_lately(void);
/* Sets bytes, limited, keep_bytes and sentinel_pages. The caller holds engine->lock. */
void window_update(struct unshard_engine *engine, uint64_t available_bytes);
/* 0 or -ENOMEM; the chunks of all files must be there. */
int drop_behind_init(struct unshard_engine *engine);
void drop_behind_free(struct unshard_engine *engine);
/* A reader has passed a published chunk. The caller holds engine->lock. */
void drop_behind_note(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* Drops what was passed longest ago until the budget holds. No lock held; may block on readers as
 * a store does. */
void drop_behind(struct unshard_engine *engine);

#endif
