/* SPDX-License-Identifier: MIT
 *
 * Reads that wait for chunks: a request is cut into pieces, one for each extent and chunk, and has
 * a waiter at each chunk that is not there yet. Whoever completes the last one calls `done`.
 */
#ifndef ENGINE_READS_H
#define ENGINE_READS_H

#include "base/arena.h"
#include "unshard.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct extent_map;
struct fetch;
struct read_request;
struct unshard_engine;

/* A stretch of a request that lies in one chunk. */
struct read_piece {
    struct read_piece *next;
    uint32_t in_chunk, in_request, length;
};

/* A request's interest in one chunk. */
struct waiter {
    struct waiter *next;
    struct read_request *request;
    struct read_piece *pieces;
    struct fetch *fetch; /* referenced, when the chunk was READY already */
};

struct read_request {
    unshard_read_done done;
    void *cookie;
    char *data;    /* assembled here; NULL when direct */
    bool direct;   /* one piece of one chunk: answered from the chunk's buffer */
    bool ahead;    /* of unshard_engine_read_ahead */
    bool uncached; /* of unshard_engine_read_direct: the reader sees nothing of the page cache */
    size_t size;
    uint32_t view;
    const struct extent_map *map; /* it was cut by this one */
    uint64_t epochs_begun;        /* ... when so many had */
    atomic_uint pending;          /* waiters, and one for the thread that issues the request */
    atomic_int error;
    struct arena arena; /* further waiters and pieces */
    struct waiter first_waiter;
    struct read_piece first_piece;
};

/* The waiter's request is one that is read ahead and asks for more than the waiter waits for. */
bool waiter_is_part(const struct waiter *waiter);
/* Ends a waiter: copies its pieces from buffer (error 0), or notes the error. No lock held; the
 * buffer must stay valid during the call. */
void waiter_complete(struct waiter *waiter, const char *buffer, int error);
/* Ends waiters with an error, or from a buffer. No lock held. */
void waiters_complete(struct waiter *waiters, const char *buffer, int error);
/* Ends the reads for which storage has given nothing for too long (read_timeout.c). Caller holds
 * engine->lock, which is released meanwhile. */
void expire_reads(struct unshard_engine *engine, uint64_t now);

#endif
