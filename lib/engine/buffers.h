/* SPDX-License-Identifier: MIT
 *
 * The memory that chunks are read into: so many buffers of one size, which are free, with whoever
 * reads, checks, hashes or stores a chunk, or kept (kept.h) for readers who will ask for it. Kept
 * ones are given back whenever free ones are short.
 *
 * A few are the reserve: nothing is fetched unasked that would leave fewer, and storers never hold
 * one of them, so that a read always finds a buffer.
 *
 * A buffer may be lent to who holds what is in it for long (staging.h): another one takes its place
 * meanwhile. So there are always as many as at the start, whatever is lent. What is put aside when
 * a lent one comes back has memory for the next loan, until buffers_take_unused tells that there
 * was none for a while.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_BUFFERS_H
#define ENGINE_BUFFERS_H

#include "engine/kept.h"

struct buffers {
    char *memory; /* of all of them, one behind the other */
    size_t bytes; /* that are mapped there */
    char **free;  /* a stack: the last one given back is the warmest in the processor's cache */
    size_t count, free_count, reserve;
    uint32_t each; /* bytes */
    struct kept_chunks kept;
    size_t most_loans, substitutes; /* there may be, and are, so many beyond `count` */
    size_t usable;                  /* substitutes that may be written to */
    char **spare;                   /* a stack: those of them that nobody has */
    size_t spare_count, spare_warm; /* of these so many, on top, have memory */
    size_t spare_unused;            /* the fewest of spare_warm since buffers_begin_count */
};

/* As many buffers of `each` bytes as fit into `bytes`, but never fewer than LEAST_BUFFERS; up to
 * `loans` bytes of them can be lent, if there is as much address space. Memory comes with first
 * use. 0 or -ENOMEM; either way buffers_destroy. */
#define LEAST_BUFFERS 8U
int buffers_init(struct buffers *buffers, uint64_t bytes, uint32_t each, uint64_t loans);
void buffers_destroy(struct buffers *buffers);

/* A free one, which must be there. */
char *buffers_take(struct buffers *buffers);
void buffers_give(struct buffers *buffers, char *buffer);
/* There is one beyond the reserve, and beyond `others` that are left to somebody else. */
bool buffers_may_fetch(const struct buffers *buffers, size_t others);
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

/* Whoever has a buffer may lend it from now on: another one is free in its place. False: there is
 * none. */
bool buffers_lend(struct buffers *buffers);
/* A lent one is used again: its owner has it as if taken. There must be a free one. */
void buffers_recall(struct buffers *buffers);
/* The loan is over, and nobody needs the buffer. */
void buffers_end_loan(struct buffers *buffers, char *buffer);
/* One of those with memory that none was lent for since buffers_begin_count; NULL: there is none.
 * Who takes it gives its memory back and puts it down with buffers_put_empty. */
char *buffers_take_unused(struct buffers *buffers);
void buffers_put_empty(struct buffers *buffers, char *buffer);
void buffers_begin_count(struct buffers *buffers);

#endif
