/* SPDX-License-Identifier: MIT
 *
 * The engine's shared state. One way in for every byte: a chunk is fetched from the source,
 * checked, answered to the reads that wait for it, published, and its buffer is used again.
 * Prefetching and demand differ only in who asks.
 *
 * States of a chunk
 *
 *   ABSENT ----> READING ----> READY ----> PUBLISHED      prefetch: schedule, read, answer, store
 *     |            ^  |          |  \                     READY -> ABSENT when nothing was stored
 *     v            |  v          v   `--> ABSENT          PUBLISHED -> QUEUED on a read: the kernel
 *   QUEUED --------'  FAILED   (reads are answered        dropped the page
 *     ^                 |       from the buffer)          FAILED -> QUEUED on a later read, or when
 * a
 *     `-----------------'                                 retry is due
 *
 *   state      fetch      buffer   lists its fetch is on               who owns it
 *   ABSENT     NULL       -        -                                   nobody
 *   QUEUED     non-NULL   none     `demand`, or `retries` until due    the queue
 *   READING    non-NULL   one      `reading`                           the worker that reads
 *   READY      non-NULL   one      none, or `stores`                   holders of references
 *   PUBLISHED  NULL       -        -                                   the kernel's page cache
 *   FAILED     NULL       -        -                                   nobody; the file has the
 * error
 *
 * Invariants, checked in debug builds by chunk_check() wherever a state changes:
 * - chunk->fetch is non-NULL exactly in QUEUED, READING and READY.
 * - Only QUEUED and READING fetches have waiters; READY answers at once.
 * - A fetch has a buffer exactly in READING and READY; a READY fetch has at least one reference.
 * - Buffers free + in fetches = all buffers. Buffers that stores can hold (of prefetch workers, of
 *   the `stores` list) never number more than all - reserve: a read always finds a buffer that no
 *   blocked store keeps from it.
 *
 * Threads
 * - prefetch workers read, check, answer and store. One may block in a store on a page that an
 *   unanswered read has locked.
 * - reserve workers read, check and answer, and never store: they take a demand when no prefetch
 *   worker is idle, with a buffer of the reserve. So every read is answered even when all prefetch
 *   workers are blocked in stores, and by that the stores go on.
 * - the housekeeper (timer): retries, stalls, worker count, window.
 * - callers of unshard_engine_read: answer from READY buffers, or queue and return.
 *
 * Locks: engine->lock protects all that is not marked otherwise; held_pages has its own. Neither is
 * taken while the other is held. No lock is held across a source read, a store, a `done` or a log
 * call.
 */
#ifndef PREFETCH_ENGINE_INTERNAL_H
#define PREFETCH_ENGINE_INTERNAL_H

#include "base/arena.h"
#include "checkpoint/model.h"
#include "prefetch/held_pages.h"
#include "source/source.h"

#include <pthread.h>
#include <stdatomic.h>
#include <xxhash.h>

#define PAGE_BYTES UINT64_C(4096)
#define DEFAULT_CHUNK_BYTES (UINT64_C(2) << 20)
#define DEFAULT_BUFFER_BYTES (UINT64_C(256) << 20)
#define MAX_WORKERS 64U
#define MAX_RESERVE_WORKERS 16U
#define MAX_STREAMS 8
#define MAX_ATTEMPTS 4

enum chunk_state {
    CHUNK_ABSENT,
    CHUNK_QUEUED,
    CHUNK_READING,
    CHUNK_READY,
    CHUNK_PUBLISHED,
    CHUNK_FAILED
};

struct fetch;

struct chunk {
    struct fetch *fetch;
    uint8_t state;     /* enum chunk_state */
    uint8_t attempts;  /* failed reads in a row */
    bool consumed;     /* a reader has passed it since it was published */
    bool seen;         /* read successfully at least once */
    uint32_t retry_at; /* FAILED: second of the engine's clock from which a read tries again */
};

struct read_request;

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
    char *data;  /* assembled here; NULL when direct */
    bool direct; /* one piece of one chunk: answered from the chunk's buffer */
    size_t size;
    atomic_uint pending; /* waiters, and one for the thread that issues the request */
    atomic_int error;
    struct arena arena; /* further waiters and pieces */
    struct waiter first_waiter;
    struct read_piece first_piece;
};

/* A chunk on its way. */
struct fetch {
    struct fetch *next, *previous; /* in one of the lists below */
    uint32_t file, index;
    uint32_t length; /* bytes of the chunk: short for the last one of a file */
    unsigned references;
    bool demanded;     /* a reader asked for it */
    bool stalled;      /* its read hangs */
    bool retried;      /* counted in its file's `retrying` */
    bool stored;       /* its pages are in the page cache */
    uint64_t since_ns; /* when it entered its state */
    char *buffer;
    struct waiter *waiters;
};

struct fetch_list {
    struct fetch *first, *last;
    size_t count;
};

struct file_state {
    struct chunk *chunks;
    XXH128_hash_t *digests;
    uint32_t chunk_count;
    uint32_t first_view, view_count; /* in engine->file_views */
    uint32_t stalled;                /* reads in flight that hang */
    uint64_t size;                   /* bytes that views may ask for: past the end reads fail */
    uint64_t bytes_read, bytes_published;
    uint32_t chunks_seen;   /* read at least once */
    uint32_t chunks_failed; /* in FAILED */
    uint32_t retrying;      /* on `retries`, or read again after a failure */
    bool has_error;
    struct unshard_error error; /* the newest */
};

struct view_state {
    bool known; /* the kernel has the inode: stores find it */
    unsigned opened;
};

/* Somebody who reads a view from some place onwards. */
struct reader_stream {
    uint64_t position; /* end of what was asked for last */
    uint64_t cursor;   /* up to here everything was scheduled or there */
    uint64_t last_ns;
    uint32_t view;
    uint32_t hits; /* reads that continued it; 0: unused */
};

struct passed_chunk {
    uint32_t file, index;
};

/* Chunks that readers have passed, oldest first. */
struct passed_ring {
    struct passed_chunk *chunks;
    size_t first, count, capacity;
};

struct plan_cursor {
    uint32_t position; /* in engine->plan */
    uint64_t offset;   /* in that view */
};

/* How many reads to keep in flight: raised while that makes the source faster. */
struct jobs_control {
    unsigned current, fixed; /* fixed: 0, or what jobs= says */
    unsigned trial_from;     /* the count that a running trial is compared with; 0: none */
    double trial_rate;
    uint64_t epoch_start_ns, epoch_bytes, hold_until_ns;
    unsigned epoch_chunks;
    bool try_fewer, starved; /* starved: work ran out within the epoch, so it says nothing */
};

struct unshard_engine {
    const struct unshard_checkpoint *checkpoint;
    struct unshard_fetch_options options;
    struct unshard_publisher publisher;
    struct source *source;
    struct held_pages held;
    uint64_t start_ns;

    pthread_mutex_t lock;
    pthread_cond_t work;         /* for prefetch workers */
    pthread_cond_t reserve_work; /* for reserve workers */
    pthread_cond_t tick;         /* for the housekeeper: stop */
    pthread_cond_t stores_done;

    struct file_state *files;
    uint32_t *file_views; /* numbers of the views that show each file */
    struct view_state *views;
    uint32_t *plan; /* views in the order in which they are prefetched */
    uint32_t plan_count;
    struct plan_cursor cursor;
    bool plan_done;
    struct reader_stream streams[MAX_STREAMS];
    uint32_t chunk_bytes;

    char *buffer_memory;
    char *
        *free_buffers; /* a stack: the last one returned is the warmest in the processor's cache */
    size_t buffer_count, free_count, reserve;

    struct fetch_list demand, retries, reading, stores;
    unsigned reading_count, stalled_count; /* reads in flight, of these hanging */
    unsigned stores_running;
    bool no_stores, stopping;

    pthread_t workers[MAX_WORKERS], reserve_workers[MAX_RESERVE_WORKERS], housekeeper;
    unsigned worker_count, reserve_worker_count;
    bool housekeeper_running;
    unsigned idle_workers, idle_reserve_workers;
    struct jobs_control jobs;

    uint64_t window_bytes;     /* how much may be published that no reader has passed */
    bool window_limited;       /* less than the checkpoint */
    uint64_t sentinel_pages;   /* every so many pages of a view one is held back; 0: none */
    uint64_t unconsumed_bytes; /* published and not passed by a reader */
    uint64_t published_bytes;  /* in PUBLISHED chunks */
    uint64_t keep_bytes;       /* as much of that may stay; what was passed goes first */
    struct passed_ring passed;
    uint64_t total_bytes;      /* of all shards in the plan */
    const char *paused_reason; /* why there is nothing to prefetch though not all is; or NULL */

    uint64_t bytes_read, chunks_evicted, reads, reads_failed, store_errors, bytes_stored,
        bytes_dropped;
    double rate;
    uint64_t rate_bytes, rate_ns;
};

/* A clock that never jumps. */
uint64_t engine_now_ns(void);
/* Hands a line to the publisher's log. No lock held. */
void engine_log(struct unshard_engine *engine, int priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* chunk.c: states and lists; the caller holds engine->lock. */
struct chunk *chunk_of(struct unshard_engine *engine, const struct fetch *fetch);
void chunk_check(const struct unshard_engine *engine, uint32_t file, uint32_t index);
void fetch_list_append(struct fetch_list *list, struct fetch *fetch);
void fetch_list_remove(struct fetch_list *list, struct fetch *fetch);
/* A fetch for a chunk in ABSENT, PUBLISHED or FAILED; on no list; NULL when memory is short. */
struct fetch *fetch_create(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* QUEUED or new -> READING with a buffer, which must be there. */
void fetch_start(struct unshard_engine *engine, struct fetch *fetch);
/* QUEUED, on the demand list. */
void fetch_queue(struct unshard_engine *engine, struct fetch *fetch);
/* Takes a reference to a READY fetch. */
void fetch_hold(struct fetch *fetch);
/* Drops one; the last gives the buffer back and makes the chunk PUBLISHED (stored) or ABSENT. */
void fetch_release(struct unshard_engine *engine, struct fetch *fetch);
/* READING -> FAILED, or -> QUEUED for another attempt (on `retries`). True when it will be retried;
 * otherwise *waiters are the caller's to end. */
bool fetch_fail(struct unshard_engine *engine, struct fetch *fetch,
                const struct unshard_error *error, struct waiter **waiters);
/* Forgets a published chunk: the kernel has dropped (some of) its pages. */
void chunk_forget(struct unshard_engine *engine, uint32_t file, uint32_t index);

/* reads.c */
/* Ends a waiter: copies its pieces from buffer (error 0), or notes the error. No lock held; the
 * buffer must stay valid during the call. */
void waiter_complete(struct waiter *waiter, const char *buffer, int error);

/* publish.c: stores what the chunk's buffer holds in all views that want it. No lock held; the
 * caller has a reference. True when everything wanted was stored. May block on readers. */
bool publish_chunk(struct unshard_engine *engine, struct fetch *fetch);

/* drop_behind.c */
/* 0 or -ENOMEM; the chunks of all files must be there. The ring is freed with the engine. */
int drop_behind_init(struct unshard_engine *engine);
/* A reader has passed a published chunk. The caller holds engine->lock. */
void drop_behind_note(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* Drops what was passed longest ago until the budget holds. No lock held; may block on readers as
 * a store does. */
void drop_behind(struct unshard_engine *engine);

/* schedule.c: the caller holds engine->lock. */
/* The next chunk to fetch without being asked, as a fetch that is on no list; NULL: nothing now. */
struct fetch *schedule_next(struct unshard_engine *engine);
/* A reader asked for [offset, end) of a view. */
void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                        uint64_t end);
/* A reader took a sentinel page: everything since the sentinel before it has been passed. */
void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page);
/* Starts over: something became absent or a view became known. */
void schedule_restart(struct unshard_engine *engine);

/* worker.c */
/* Wakes a worker that can take the demand queue's next fetch. The caller holds engine->lock. */
void wake_for_demand(struct unshard_engine *engine);
void *prefetch_worker(void *engine);
void *reserve_worker(void *engine);
/* Starts workers up to what jobs and hanging reads ask for. The caller holds engine->lock. */
void workers_spawn(struct unshard_engine *engine);

/* housekeeper.c */
void *housekeeper(void *engine);
/* A chunk was read: input for the worker count. The caller holds engine->lock. */
void jobs_note_chunk(struct unshard_engine *engine, uint64_t bytes);

/* window.c: sets window_bytes, window_limited, keep_bytes and sentinel_pages. The caller holds
 * engine->lock. */
void window_update(struct unshard_engine *engine, uint64_t available_bytes);
/* available_memory.c: memory that page cache can take: MemAvailable, and the room in every cgroup
 * above us. Reads /proc and /sys; no lock held. */
uint64_t window_available_memory(void);

#endif
