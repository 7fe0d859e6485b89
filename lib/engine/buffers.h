/* SPDX-License-Identifier: MIT
 *
 * The memory that chunks are read into: so many buffers of one size, which are free, with whoever
 * reads, checks, hashes or stores a chunk, or kept (kept.h) for readers who will ask for it. Kept
 * ones are given back whenever free ones are short.
 *
 * A few are the reserve: nothing is fetched unasked that would leave fewer, and storers never hold
 * one of them, so that a read always finds a buffer.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_BUFFERS_H
#define ENGINE_BUFFERS_H

#include "engine/kept.h"

struct buffers {
    char *memory;
    char **free; /* a stack: the last one given back is the warmest in the processor's cache */
    size_t count, free_count, reserve;
    uint32_t each; /* bytes */
    struct kept_chunks kept;
};

/* As many buffers of `each` bytes as fit into `bytes`, but never fewer than LEAST_BUFFERS. Takes
 * address space; memory comes with first use. 0 or -ENOMEM; either way buffers_destroy. */
#define LEAST_BUFFERS 8U
int buffers_init(struct buffers *buffers, uint64_t bytes, uint32_t each);
void buffers_destroy(struct buffers *buffers);

/* A free one, which must be there. */
char *buffers_take(struct buffers *buffers);
void buffers_give(struct buffers *buffers, char *buffer);
/* There is one beyond the reserve. */
bool buffers_may_fetch(const struct buffers *buffers);
/* Gives kept buffers back until more than so many are free, or none is kept. */
void buffers_reclaim(struct buffers *buffers, size_t least);
/* Takes over a chunk with its buffer, in the place of the one that has been kept for longest where
 * as many are kept as may be. */
void buffers_keep(struct buffers *buffers, const struct kept_chunk *chunk);
/* Nothing of the file is kept any more. */
void buffers_forget(struct buffers *buffers, uint32_t file);
/* How many storers may hold. */
static inline size_t buffers_for_stores(const struct buffers *buffers)
{
    return buffers->count - buffers->reserve;
}

#endif
