/* SPDX-License-Identifier: MIT
 *
 * Chunks and their fetches. One way in for every byte: a chunk is fetched from the source, checked,
 * answered to the reads that wait for it, published, and its buffer is used again. Prefetching and
 * demand differ only in who asks.
 *
 * States of a chunk
 *
 *   ABSENT ----> READING ----> READY ----> PUBLISHED
 *     |            ^  |          |  \
 *     v            |  v          v   `--> ABSENT
 *   QUEUED --------'  FAILED   (reads are answered
 *     ^                 |       from the buffer)
 *     `-----------------'
 *
 *   ABSENT -> READING     prefetched       READY -> ABSENT      nothing was stored
 *   ABSENT -> QUEUED      a read asks      PUBLISHED -> QUEUED  a read asks: the kernel dropped it
 *   READING -> QUEUED     to be retried    PUBLISHED -> ABSENT  passed by readers, evicted, doubted
 *   ABSENT, PUBLISHED, FAILED -> READY   a reader with O_DIRECT asks for what is kept in its buffer
 *   READING, READY -> ABSENT   the file has changed, or is blocked: the fetch is an orphan then
 *   FAILED -> QUEUED      a read asks, and the error is not one that stays
 *   FAILED -> READING     likewise, prefetched when its time has come
 *
 *   state      fetch      buffer   lists its fetch is on              who owns it
 *   ABSENT     NULL       -        -                                  nobody
 *   QUEUED     non-NULL   none     `demand`; `retries` until due; or  the queue
 *                                  `held` of its file, while that is
 *                                  closed
 *   READING    non-NULL   one      `reading`                          the reader that reads
 *   READY      non-NULL   one      none, or `stores`                  holders of references
 *   PUBLISHED  NULL       -        -                                  the kernel's page cache
 *   FAILED     NULL       -        -                                  nobody
 *
 * PUBLISHED is what we believe, a hint: the kernel drops pages and tells nobody. It keeps the chunk
 * from being fetched unasked. When a READ of a reader that sees the page cache comes for whole
 * pages of such a chunk they are gone (a READ that raced with the store would have kept it from
 * ending), and the stretch ahead of that reader is believed no more either (schedule_doubt).
 *
 * A reader with O_DIRECT proves nothing: the pages may be there. A fetch for it of a PUBLISHED
 * chunk is `stored` from the start, and PUBLISHED again when it ends. Its bytes stay in their
 * buffer (kept.h) until readers have asked for all of them.
 *
 * Whether any of a file is served says its gate (gate.h); of which content something is says its
 * epoch (epoch.h). A fetch that is no orphan is of the current epoch of a file that is not blocked.
 *
 * What is fetched unasked is derived: `wanted` of each file, which the chunk's state keeps up to
 * date (wanted.h). FAILED chunks are wanted again after a time; a file of which several have failed
 * rests as a whole, and a view whose stores fail is fetched for more and more rarely. All three
 * heal by themselves, at once when a reader's own read or store succeeds, and by `warm`.
 *
 * Invariants, checked in debug builds by chunk_check() wherever a state changes:
 * - chunk->fetch is non-NULL exactly in QUEUED, READING and READY.
 * - ABSENT chunks are wanted, now or later; QUEUED, READING, READY and PUBLISHED ones are not. When
 *   the plan is taken for done, a search through all of it finds nothing to fetch.
 * - Only QUEUED and READING fetches have waiters; READY answers at once.
 * - A fetch has a buffer exactly in READING and READY; a READY fetch has at least one reference.
 * - A fetch of a closed file is on its `held` list only; a blocked file has no chunk with a fetch.
 * - Buffers free + kept + in fetches, detached ones and orphans too, = all buffers. Kept ones are
 *   given back whenever free ones are short. Buffers that stores hold (storers, and the `stores`
 *   list) never number more than all - reserve, and passes leave one of the reserve to demands: a
 *   read always finds a buffer that no blocked store holds.
 *
 * The fetch of a pass over a file of which nothing may be served yet is `detached`: it is not the
 * fetch of its chunk, which knows nothing of it. It is read, tried again and counted as any other.
 *
 * The caller of everything here holds engine->lock; nothing blocks.
 */
#ifndef ENGINE_CHUNKS_H
#define ENGINE_CHUNKS_H

#include "digest/digest.h"
#include "engine/wanted.h"
#include "unshard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ATTEMPTS 4
#define FIRST_RETRY_NS UINT64_C(50000000)

struct file_check;
struct file_epoch;
struct file_state;
struct unshard_engine;
struct waiter;

enum chunk_state {
    CHUNK_ABSENT,
    CHUNK_QUEUED,
    CHUNK_READING,
    CHUNK_READY,
    CHUNK_PUBLISHED,
    CHUNK_FAILED
};

struct chunk {
    struct fetch *fetch;
    uint8_t state;     /* enum chunk_state */
    uint8_t attempts;  /* failed reads in a row */
    bool consumed;     /* a reader has passed it since it was published */
    bool seen;         /* read successfully at least once; file_state.digests has what it was */
    bool checked;      /* matched the digest that it must match */
    bool doubted;      /* was taken for published when a reader found that its pages are gone */
    uint32_t retry_at; /* FAILED: second of the engine's clock from which a read tries again */
    uint32_t published_tick; /* PUBLISHED: since when, see engine_tick */
};

/* A chunk on its way. */
struct fetch {
    struct fetch *next, *previous; /* in one of the lists below */
    uint32_t file, index;
    uint32_t length; /* bytes of the chunk: short for the last one of a file */
    unsigned references;
    bool demanded;                  /* a reader asked for it */
    bool stalled;                   /* its read hangs */
    bool reported;                  /* ... and the log has said so */
    bool orphan;                    /* its chunk has let go of it: see fetch_disown */
    bool answered;                  /* its chunk was READY */
    bool retried;                   /* counted in its file's `retrying` */
    bool stored;                    /* its pages are in the page cache */
    bool uncached;                  /* for readers that see nothing of the page cache */
    bool refused;                   /* the kernel did not take its pages */
    bool kept;                      /* it was in its buffer already when the read began */
    bool from_memory;               /* the source had it in memory */
    bool from_pages;                /* it is to be taken, or was, from pages that were stored */
    uint64_t asked;                 /* bytes that reads have asked of it */
    uint32_t stream;                /* number of the stream that it was fetched for; 0: none */
    bool given_up;                  /* they were dropped while it was READY: not PUBLISHED then */
    bool pass;                      /* a pass over its file hashes it */
    bool hashed;                    /* ... has hashed it already */
    bool detached;                  /* ... and does only that: it is not the fetch of its chunk */
    bool staged;                    /* its bytes came out of staging */
    bool counts_staged;             /* counted in queues.staged */
    bool stages;                    /* its bytes are to be staged when they are hashed */
    struct file_epoch *epoch;       /* that it is of; referenced; NULL before it is read */
    const struct file_check *check; /* what its bytes must match, as of when the read began */
    struct digest digest;           /* of what was read (keyed), unless digests of chunks were
                                     * matched; of the piece that did not match its own */
    uint64_t since_ns;              /* when it entered its state */
    uint64_t awaited_ns;            /* since when a reader has waited for it; 0: none has */
    char *buffer;
    struct waiter *waiters;
};

struct fetch_list {
    struct fetch *first, *last;
    size_t count;
};

/* Where fetches are that wait or are read. */
struct fetch_queues {
    struct fetch_list demand, retries, reading, stores;
    unsigned stalled; /* of `reading`, those that hang */
    unsigned staged;  /* ... and those from staging, which cost storage nothing */
};

/* States and lists; the caller holds engine->lock. */
struct chunk *chunk_of(struct unshard_engine *engine, const struct fetch *fetch);
/* In bytes: chunk_bytes, or what is left for the last one of the file. */
uint32_t chunk_length(const struct unshard_engine *engine, uint32_t file, uint32_t index);
/* Ends the program when an invariant does not hold: in debug builds. */
void chunk_check(const struct unshard_engine *engine, uint32_t file, uint32_t index);
/* Whoever changes a chunk that has no fetch says so before. */
void chunk_touch(struct file_state *file, uint32_t index);
/* The first chunk from `index` on that may not be as it was at the start, or file->chunk_count. Of
 * a huge file few are: who goes through all chunks goes from one of these to the next. */
uint32_t chunk_next_touched(const struct file_state *file, uint32_t index);
/* Forgets a published chunk: (some of) its pages are not there any more, and it is wanted. Whoever
 * does that with many says so afterwards by schedule_offer. */
void chunk_forget(struct unshard_engine *engine, uint32_t file, uint32_t index, enum wanted_by by);

/* It was PUBLISHED by an earlier process: ABSENT -> PUBLISHED. */
void chunk_restore(struct unshard_engine *engine, uint32_t file, uint32_t index, bool consumed);

void fetch_list_append(struct fetch_list *list, struct fetch *fetch);
void fetch_list_remove(struct fetch_list *list, struct fetch *fetch);

/* A fetch for a chunk in ABSENT, PUBLISHED or FAILED; on no list; NULL when memory is short. */
struct fetch *fetch_create(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* QUEUED or new -> READING with a buffer, which must be there or be its own already. Of a detached
 * fetch likewise, but for the chunk's state. */
void fetch_start(struct unshard_engine *engine, struct fetch *fetch);
/* A new fetch becomes READY at once, with a reference, when its chunk is kept and good. */
bool fetch_from_kept(struct unshard_engine *engine, struct fetch *fetch);
/* QUEUED, on the demand list. */
void fetch_queue(struct unshard_engine *engine, struct fetch *fetch);
/* QUEUED and on no list: to the end of the demand list, or of what its file holds while it is
 * closed. */
void fetch_line_up(struct unshard_engine *engine, struct fetch *fetch);
/* Takes a reference to a READY fetch. */
void fetch_hold(struct fetch *fetch);
/* Drops one; the last gives the buffer back and makes the chunk PUBLISHED (stored) or ABSENT. */
void fetch_release(struct unshard_engine *engine, struct fetch *fetch);
/* A read of it has failed and is over. True: a second try may cure that, and it is on `retries`
 * until its time has come; of a fetch of its own chunk the caller sees to the state. */
bool fetch_retry(struct unshard_engine *engine, struct fetch *fetch,
                 const struct unshard_error *error);
/* READING -> FAILED, or -> QUEUED for another attempt (on `retries`). True when it will be retried;
 * otherwise *waiters are the caller's to end. */
bool fetch_fail(struct unshard_engine *engine, struct fetch *fetch,
                const struct unshard_error *error, struct waiter **waiters);
/* QUEUED -> ABSENT; moves its waiters in front of *waiters. */
void fetch_cancel(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters);
/* READING or READY -> ABSENT. What was or will be read is of a content that is not to be
 * served any more: no read finds it from now on, and whoever has the fetch lets it go without
 * touching the chunk. Moves its waiters in front of *waiters. */
void fetch_disown(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters);

/* Gives it one, which must be there, or the one in which its chunk is staged. */
void fetch_take_buffer(struct unshard_engine *engine, struct fetch *fetch);
/* Takes a buffer from a fetch that is on no list. */
void fetch_return_buffer(struct unshard_engine *engine, struct fetch *fetch);
/* What it has read stays, in the buffer, until somebody comes for it. False: there is no
 * memory for that. */
bool fetch_stage(struct unshard_engine *engine, struct fetch *fetch);
/* The fetch is of the file's epoch as it is checked now. */
void fetch_note_epoch(struct unshard_engine *engine, struct fetch *fetch);
/* Of one that is nobody's any more and has no buffer. */
void fetch_free(struct fetch *fetch);

/* A second try may cure it. */
bool error_is_transient(const struct unshard_error *error);
/* How long to wait after so many failed attempts. */
static inline uint64_t retry_delay_ns(unsigned attempts)
{
    return FIRST_RETRY_NS << (2 * (attempts - 1));
}

#endif
