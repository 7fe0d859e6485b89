/* SPDX-License-Identifier: MIT
 *
 * The engine's shared state. One way in for every byte: a chunk is fetched from the source,
 * checked, answered to the reads that wait for it, published, and its buffer is used again.
 * Prefetching and demand differ only in who asks.
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
 * Threads
 * - readers read, check and answer, and leave what they have read to the storers (reader.c).
 * - storers store and drop (storer.c). They may block on a page that an unanswered read has locked;
 *   no reader ever waits for them. So every read is answered even when all storers are blocked, and
 *   by that the stores go on.
 * - the housekeeper (timer): retries, stalls, time-outs, how many reads, window.
 * - the watcher: looks whether files have changed on disk, writes the cache of digests; may hang
 *   with the storage.
 * - callers of unshard_engine_read: answer from READY buffers, or queue and return.
 *
 * Locks: engine->lock protects all that is not marked otherwise; held_pages has its own. Neither is
 * taken while the other is held. No lock is held across a source read, a store, a `done` or a log
 * call.
 */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H

#include "base/arena.h"
#include "base/number_set.h"
#include "base/xxh3.h"
#include "digest/digest_cache.h"
#include "digest/secret.h"
#include "engine/buffers.h"
#include "engine/chunk_runs.h"
#include "engine/epoch.h"
#include "engine/gate.h"
#include "engine/held_pages.h"
#include "engine/jobs.h"
#include "engine/runs.h"
#include "engine/staging.h"
#include "engine/streams.h"
#include "engine/wanted.h"
#include "store/source.h"
#include "tree/model.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAGE_BYTES UINT64_C(4096)
#define DEFAULT_CHUNK_BYTES (UINT64_C(2) << 20)
#define DEFAULT_BUFFER_BYTES (UINT64_C(256) << 20)
/* Readers beyond those that storage is given unasked. */
#define READERS_FOR_DEMANDS 4U
#define MAX_READERS (JOBS_MOST + 16U)
#define MAX_STORERS 32U
#define MAX_ATTEMPTS 4
#define FIRST_RETRY_NS UINT64_C(50000000)
#define LEAST_HELD_PAGES 4096U
#define DEFAULT_READ_TIMEOUT_SECONDS 300.0

enum chunk_state {
    CHUNK_ABSENT,
    CHUNK_QUEUED,
    CHUNK_READING,
    CHUNK_READY,
    CHUNK_PUBLISHED,
    CHUNK_FAILED
};

struct fetch;
struct check_pass;

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
    bool counts_staged;             /* counted in staged_reading */
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

/* Failed reads of a file from the first one until all is well again: the log tells of the first
 * ones, of the end, and how many there were. */
struct failure_episode {
    uint64_t since_ns, count;
    unsigned lasting_told; /* of those that no second try cures */
    bool failed_told;
};

/* What the status tells of reads that have failed. Few files have it. */
struct file_trouble {
    struct unshard_error error;
    struct mismatch mismatch; /* of a chunk, see file_mismatch */
};

struct file_state {
    struct chunk *chunks;       /* lazy: nothing is written to those that nothing happens to */
    struct chunk_tag *digests;  /* of chunks that are `seen`; lazy too */
    uint64_t *touched;          /* see chunk_next_touched */
    struct wanted wanted;       /* which of them are to be fetched unasked */
    struct chunk_runs shown;    /* some view shows some of them; the others need not be read */
    struct chunk_runs gathered; /* some of them is gathered */
    struct file_epoch *epoch;   /* the current one; referenced */
    struct gate gate;
    unsigned stores;  /* of its chunks, and of pages with bytes of it, running */
    unsigned orphans; /* fetches that its chunks have let go of and that are not gone yet */
    uint32_t chunks_checked;
    uint64_t bytes_seen;
    struct check_pass *pass;
    bool pass_demanded;     /* a reader waits for it */
    uint64_t pass_retry_ns; /* not to be tried again before */
    uint32_t chunk_count;
    uint32_t first_view, view_count;         /* in engine->file_views */
    size_t first_dependent, dependent_count; /* in engine->dependents */
    uint32_t stalled;                        /* reads in flight that hang */
    uint64_t size; /* bytes that views may ask for: past the end reads fail */
    uint64_t bytes_read, bytes_published; /* published: without unshown ones */
    uint64_t given_ns;                    /* when storage last gave some of it */
    uint32_t chunks_seen;                 /* read at least once, without unshown ones */
    uint32_t chunks_unshown;
    atomic_bool unread_checked; /* see unread_check */
    uint64_t unshown_bytes;     /* of these */
    uint32_t chunks_failed;     /* in FAILED */
    uint32_t retrying;          /* on `retries`, or read again after a failure */
    unsigned rests;             /* in a row, since a chunk of it was read */
    struct failure_episode episode;
    struct fetch_list held;       /* QUEUED, while the gate is CLOSED */
    bool failing;                 /* a read has failed, and since then not all has been well */
    struct file_trouble *trouble; /* of the newest of these, see file_error; NULL: there was none
                                   * yet, or no memory for it */
};

/* The map of a view of one whole file that is longer or shorter now than discovery saw it. */
struct plain_map {
    struct plain_map *older; /* somebody may still be reading by it: freed with the engine */
    struct extent_map map;
};

struct view_state {
    _Atomic(const struct extent_map *) map; /* the checkpoint's, or that of `plain` */
    struct plain_map *plain;
    int64_t mtime_ns; /* of the file, when `replaced` */
    bool replaced;    /* it is not the file that discovery saw */
    bool known;       /* the kernel has the inode: stores find it */
    bool evicted;     /* by request: not prefetched */
    bool others_may;  /* owner, group or mode are not those of its node: these are */
    struct permissions permissions;
    unsigned opened;         /* handles */
    unsigned direct;         /* ... of these with O_DIRECT */
    unsigned storing;        /* stores into it that run */
    unsigned store_failures; /* in a row */
    uint64_t store_rest_ns;  /* nothing is fetched unasked for it before; 0: does not rest */
    uint64_t planned_to;     /* before here the plan has nothing to fetch now */
    bool plan_waits;         /* ... but will have, when something changes that is told of */
};

struct passed_chunk {
    uint32_t file, index;
};

/* Chunks that readers have passed, oldest first. */
struct passed_ring {
    struct passed_chunk *chunks;
    size_t first, count, capacity;
};

struct unshard_engine {
    const struct unshard_checkpoint *checkpoint;
    struct unshard_fetch_options options;
    struct unshard_publisher publisher;
    struct source *source;
    struct held_pages held;
    uint64_t start_ns;

    pthread_mutex_t lock;
    pthread_cond_t work;        /* for readers */
    pthread_cond_t store_work;  /* for storers */
    pthread_cond_t tick;        /* for the housekeeper and the watcher: stop */
    pthread_cond_t stores_done; /* of a file or a view, or the pages of a file are gone */

    struct file_state *files;
    uint32_t *file_views;  /* numbers of the views that show each file */
    uint64_t epochs_begun; /* how often a file has begun anew */
    uint32_t *dependents;  /* numbers of the gathered files that take bytes from each file */
    struct view_state *views;
    uint32_t *plan; /* views in the order in which they are prefetched */
    uint32_t plan_count;
    uint32_t plan_first;      /* before here in `plan` there is nothing to fetch now */
    bool plan_done;           /* nor will there be by itself */
    bool search_on;           /* a search was interrupted: there may be work all the same */
    uint64_t given_ns;        /* when storage last gave something */
    uint64_t asked_ns;        /* when a reader last asked for something */
    uint64_t typical_read_ns; /* how long reads of storage take these days */
    struct streams streams;
    uint32_t chunk_bytes;

    struct buffers buffers;

    struct fetch_list demand, retries, reading, stores;
    unsigned stalled_count;  /* of `reading`, those that hang */
    unsigned staged_reading; /* ... and those from staging, which cost storage nothing */
    unsigned stores_running;
    unsigned drops_due; /* files whose pages are, see gate.h */
    bool no_stores, stopping;

    pthread_t readers[MAX_READERS], storers[MAX_STORERS], housekeeper, watcher;
    unsigned reader_count, storer_count;
    unsigned readers_running; /* readers that have their number */
    unsigned idle_readers, idle_storers;
    bool housekeeper_running, watcher_running;
    struct jobs jobs;
    struct runs runs;
    struct run run_of[MAX_READERS];
    size_t most_queued; /* `stores` that wait: with more of them nothing is fetched unasked */
    size_t storing;     /* fetches that storers have */
    uint64_t stores_done_count, stores_done_before; /* ...have had; at the last tick */

    uint32_t *pass_files;  /* files with a digest of the whole, in the order of the plan */
    uint32_t *pass_places; /* of each file: its place there, or UINT32_MAX */
    uint64_t *pass_due;    /* a bit for each place where a pass may have to be begun unasked */
    struct number_set passes, passes_demanded; /* files with `pass`; some with pass_demanded */
    uint32_t pass_count, planned_passes;       /* the latter of the plan, the rest of other files */
    uint32_t *same_file; /* of each file: the next in its ring of names; const after start */
    unsigned passes_running, passes_reading, most_passes;
    unsigned passes_in_memory; /* running ones that wait for nothing but a processor */
    unsigned processors;
    bool source_gone;     /* its path leads nowhere; the error says since when */
    bool source_followed; /* it has led to another directory; of the watcher's thread */
    struct unshard_error source_error;
    /* Those of all files and views that something waits for; some may have no more to wait for. */
    struct number_set holding;     /* files with fetches in `held` */
    struct number_set putting_off; /* files of which something is wanted at a later time */
    struct number_set resting;     /* views with store_rest_ns */
    struct number_set suspects;    /* files to look at soon, and for as long as they are blocked */
    /* Of the watcher's thread: files whose permissions are others, and views to look at for that.
     */
    struct number_set permissions_changed, views_to_follow;
    struct secret secret;       /* of the digests of chunks made here; const after start */
    struct digest_cache *cache; /* chunk digests of earlier mounts; NULL: none */
    struct number_set to_keep;  /* files whose gained digests are to be written to it */
    struct staging staging;

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
/* The same since the engine was started, coarse, for what is kept of each chunk. */
static inline uint32_t engine_tick(const struct unshard_engine *engine, uint64_t now_ns)
{
    return (uint32_t)((now_ns - engine->start_ns) >> 24); /* 17 ms */
}
/* Hands a line to the publisher's log. No lock held. */
void engine_log(struct unshard_engine *engine, int priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* chunk.c: states and lists; the caller holds engine->lock. */
struct chunk *chunk_of(struct unshard_engine *engine, const struct fetch *fetch);
/* A new fetch becomes READY at once, with a reference, when its chunk is kept and good. */
bool fetch_from_kept(struct unshard_engine *engine, struct fetch *fetch);
/* In bytes: chunk_bytes, or what is left for the last one of the file. */
uint32_t chunk_length(const struct unshard_engine *engine, uint32_t file, uint32_t index);
void chunk_check(const struct unshard_engine *engine, uint32_t file, uint32_t index);
void fetch_list_append(struct fetch_list *list, struct fetch *fetch);
void fetch_list_remove(struct fetch_list *list, struct fetch *fetch);
/* A fetch for a chunk in ABSENT, PUBLISHED or FAILED; on no list; NULL when memory is short. */
struct fetch *fetch_create(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* QUEUED or new -> READING with a buffer, which must be there or be its own already. Of a detached
 * fetch likewise, but for the chunk's state. */
void fetch_start(struct unshard_engine *engine, struct fetch *fetch);
/* A read of it has failed and is over. True: a second try may cure that, and it is on `retries`
 * until its time has come; of a fetch of its own chunk the caller sees to the state. */
bool fetch_retry(struct unshard_engine *engine, struct fetch *fetch,
                 const struct unshard_error *error);
/* QUEUED, on the demand list. */
void fetch_queue(struct unshard_engine *engine, struct fetch *fetch);
/* QUEUED and on no list: to the end of the demand list, or of what its file holds while it is
 * closed. */
void fetch_line_up(struct unshard_engine *engine, struct fetch *fetch);
/* Takes a reference to a READY fetch. */
void fetch_hold(struct fetch *fetch);
/* Drops one; the last gives the buffer back and makes the chunk PUBLISHED (stored) or ABSENT. */
void fetch_release(struct unshard_engine *engine, struct fetch *fetch);
/* READING -> FAILED, or -> QUEUED for another attempt (on `retries`). True when it will be retried;
 * otherwise *waiters are the caller's to end. */
bool fetch_fail(struct unshard_engine *engine, struct fetch *fetch,
                const struct unshard_error *error, struct waiter **waiters);
/* Forgets a published chunk: (some of) its pages are not there any more, and it is wanted. Whoever
 * does that with many says so afterwards by schedule_offer. */
void chunk_forget(struct unshard_engine *engine, uint32_t file, uint32_t index, enum wanted_by by);
/* The first chunk from `index` on that may not be as it was at the start, or file->chunk_count. Of
 * a huge file few are: who goes through all chunks goes from one of these to the next. */
uint32_t chunk_next_touched(const struct file_state *file, uint32_t index);
/* Whoever changes a chunk that has no fetch says so before. */
void chunk_touch(struct file_state *file, uint32_t index);
/* No view shows any of it. */
static inline bool chunk_is_unshown(const struct file_state *file, uint32_t index)
{
    return !chunk_runs_have(&file->shown, index);
}

/* file_chunks.c */
/* Chunks for `size` bytes, as the files begin; *file has nothing of them yet. 0, -EFBIG or -ENOMEM,
 * then nothing is left of it. */
int file_chunks_make(const struct unshard_engine *engine, struct file_state *file, uint64_t size);
void file_chunks_free(struct file_state *file);

/* reads.c */
/* The waiter's request is one that is read ahead and asks for more than the waiter waits for. */
bool waiter_is_part(const struct waiter *waiter);
/* Ends a waiter: copies its pieces from buffer (error 0), or notes the error. No lock held; the
 * buffer must stay valid during the call. */
void waiter_complete(struct waiter *waiter, const char *buffer, int error);

/* publish.c: stores what the chunk's buffer holds in all views that want it. No lock held; the
 * caller has a reference. True when it was stored somewhere; *failed is set when the kernel
 * did not take what it was given. May block on readers. */
bool publish_chunk(struct unshard_engine *engine, struct fetch *fetch, bool *failed);
/* Some view wants pages of it. The caller holds engine->lock. */
bool publish_is_wanted(const struct unshard_engine *engine, const struct fetch *fetch);

/* retrieve.c: fills the buffer of a fetch from the page cache; false: it has to be read. No lock
 * held. Blocks for less than a second. */
bool retrieve_chunk(struct unshard_engine *engine, struct fetch *fetch);

/* drop_behind.c */
/* 0 or -ENOMEM; the chunks of all files must be there. */
int drop_behind_init(struct unshard_engine *engine);
void drop_behind_free(struct unshard_engine *engine);
/* A reader has passed a published chunk. The caller holds engine->lock. */
void drop_behind_note(struct unshard_engine *engine, uint32_t file, uint32_t index);
/* Drops what was passed longest ago until the budget holds. No lock held; may block on readers as
 * a store does. */
void drop_behind(struct unshard_engine *engine);

/* chunk.c: QUEUED -> ABSENT; moves its waiters in front of *waiters. */
void fetch_cancel(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters);
/* chunk.c: READING or READY -> ABSENT. What was or will be read is of a content that is not to be
 * served any more: no read finds it from now on, and whoever has the fetch lets it go without
 * touching the chunk. Moves its waiters in front of *waiters. */
void fetch_disown(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters);
/* chunk.c: takes a buffer from a fetch that is on no list. */
void fetch_return_buffer(struct unshard_engine *engine, struct fetch *fetch);
/* chunk.c: gives it one, which must be there, or the one in which its chunk is staged. */
void fetch_take_buffer(struct unshard_engine *engine, struct fetch *fetch);
/* chunk.c: what it has read stays, in the buffer, until somebody comes for it. False: there is no
 * memory for that. */
bool fetch_stage(struct unshard_engine *engine, struct fetch *fetch);
/* chunk.c: the fetch is of the file's epoch as it is checked now. */
void fetch_note_epoch(struct unshard_engine *engine, struct fetch *fetch);
/* chunk.c: of one that is nobody's any more and has no buffer. */
void fetch_free(struct fetch *fetch);
/* reader.c: the caller holds engine->lock. Takes the fetch off the list of running reads. */
void end_reading(struct unshard_engine *engine, struct fetch *fetch);
/* reader.c: likewise. A chunk has been read: from storage, or (from_staging) from its copy. */
void note_success(struct unshard_engine *engine, struct fetch *fetch, bool from_staging);
/* reader.c: logs a failed read. No lock held. */
void log_failure(struct unshard_engine *engine, uint32_t file, const struct unshard_error *error,
                 bool will_retry);
/* reader.c: ends the file's failures, if there were any, and logs that. No lock held. */
void log_recovery(struct unshard_engine *engine, uint32_t file);
/* chunk.c: where it is noted what is wrong with the file; NULL: memory is short. The caller holds
 * engine->lock. */
struct file_trouble *file_trouble(struct file_state *file);
/* chunk.c: a read of the file has failed. The caller holds engine->lock. */
void file_note_error(struct file_state *file, const struct unshard_error *error);
/* chunk.c: a second try may cure it. */
bool error_is_transient(const struct unshard_error *error);
/* How long to wait after so many failed attempts. */
static inline uint64_t retry_delay_ns(unsigned attempts)
{
    return FIRST_RETRY_NS << (2 * (attempts - 1));
}
/* reader.c: ends waiters with an error, or from a buffer. No lock held. */
void waiters_complete(struct waiter *waiters, const char *buffer, int error);

/* check_chunk.c */
/* The code of the error for a file whose header was read otherwise when the views were planned:
 * none of it can be served. */
#define HEADER_MISMATCH "header-mismatch"
/* What was read against the digest that it must match, and the header as it was read before;
 * without a digest to match, its own goes to fetch->digest. No lock held. 0, or -EIO with *error,
 * code "mismatch" or HEADER_MISMATCH. */
int check_chunk(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error);
/* Bytes of a file, from a multiple of HEADER_PIECE_BYTES on, against what discovery read of them.
 * 0, or -EIO with the code HEADER_MISMATCH. */
int check_header(struct unshard_engine *engine, uint32_t file, uint64_t start, const char *bytes,
                 uint64_t length, struct unshard_error *error);
/* One chunk of a file, as long as the digests are of, against its digest. No lock. As above. */
int check_bytes(struct unshard_engine *engine, uint32_t file, const struct file_check *check,
                uint64_t offset, const char *bytes, uint64_t length, struct unshard_error *error);
/* What was read against what was read before, after a check_chunk that succeeded and before the
 * chunk is `seen`. The caller holds engine->lock. 0, or -EIO with *error, code "changed". */
int check_observed(struct unshard_engine *engine, const struct fetch *fetch,
                   struct unshard_error *error);

/* For the status: which digest the piece at `offset` of a file should have had, and which it has.
 * The caller holds engine->lock. */
void note_chunk_mismatch(struct file_state *file, const struct file_check *check,
                         const struct digest *actual, uint64_t offset);

/* check_setup.c */
/* What a file cannot be, whatever it holds: origins contradict each other about it, or it is not as
 * long as it must be. 0, or -EIO with *error. Takes no lock. */
int check_possible(const struct unshard_engine *engine, uint32_t file, uint64_t size,
                   struct unshard_error *error);

/* check_pass.c */
/* Gives back what is staged and nobody has come for: when neither readers nor storage have been
 * heard of for a while, or when memory has become short. Caller holds engine->lock. */
void pass_unstage(struct unshard_engine *engine, uint64_t now);
/* Decides what each file is checked by, and blocks what cannot be right. Before there are threads.
 * 0 or -ENOMEM. */
int checks_init(struct unshard_engine *engine);
void checks_free(struct unshard_engine *engine);
/* A reader waits for the file: if a pass has to tell of it, it is not to wait for its turn. The
 * caller holds engine->lock. */
void pass_demand(struct unshard_engine *engine, uint32_t file);
/* The file has begun anew. The caller holds engine->lock. */
void pass_may_be_due(struct unshard_engine *engine, uint32_t file);
/* The next read of a pass, started; NULL: none now. The caller holds engine->lock, and there is a
 * buffer to take. */
struct fetch *pass_next(struct unshard_engine *engine);
/* As pass_next, but only for files that readers wait for. */
struct fetch *pass_next_demanded(struct unshard_engine *engine);
/* Writes chunk digests that passes have brought to the cache. No lock held. May hang with the file
 * system that the cache is on. */
void keep_gained(struct unshard_engine *engine);
/* Reads for a pass; the fetch is gone afterwards. No lock held. May block as file_block does. */
void pass_read(struct unshard_engine *engine, struct fetch *fetch);
/* pass_stream.c: reads the chunk of a detached fetch and feeds it to the hasher of its pass, whose
 * turn it must be. The buffer holds nothing of use afterwards. *cached: as source_read, of the last
 * piece. No lock held. 0 with fetch->digest set and *hasher another one; or as source_read and
 * check_header, then *hasher is what it was. */
int pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                bool *cached, struct unshard_error *error);
/* A chunk that is READY, or was read for the pass, is there to be hashed; takes over a reference to
 * it. No lock held; hashes, and what follows from the last one. */
void pass_arrived(struct unshard_engine *engine, struct fetch *fetch);
/* The content that the pass is made over is not to be served any more: it comes to its end without
 * a verdict, and lets go of what it keeps. The caller holds engine->lock. */
void pass_void(struct unshard_engine *engine, uint32_t file);
/* A fetch of the pass has failed for good and is gone. The caller holds engine->lock. */
void pass_abandon(struct unshard_engine *engine, uint32_t file);
/* A detached fetch will not be read: lets it go. On no list; the caller holds engine->lock. */
void pass_cancel(struct unshard_engine *engine, struct fetch *fetch);

/* Frees a pass that did not come to an end. There are no other threads any more. */
void pass_discard(struct unshard_engine *engine, uint32_t file);
/* Under what the cache keeps the chunk digests of an epoch that has a digest of the whole. */
struct digest_cache_key pass_cache_key(const struct file_epoch *epoch);

/* same_file.c */
/* Finds files that are names of the same file. Before there are threads. 0 or -ENOMEM. */
int same_file_init(struct unshard_engine *engine);
/* The name of the file `number` that comes after its name `at`; `number` itself when there is none
 * any more. The caller holds engine->lock. */
uint32_t same_file_next(const struct unshard_engine *engine, uint32_t number, uint32_t at);

/* view_permissions.c */
/* Owner, group and mode of the view as its files are now. Caller holds engine->lock. */
struct permissions view_permissions(const struct unshard_engine *engine, uint32_t view);
/* Before there are threads. 0 or -ENOMEM. */
int view_permissions_init(struct unshard_engine *engine);
void view_permissions_free(struct unshard_engine *engine);
/* The file's are not what they were. For the watcher's thread. */
void view_permissions_note(struct unshard_engine *engine, uint32_t file);
/* Tells the publisher of the views that are concerned by what was noted. No lock held; for the
 * watcher's thread. */
void view_permissions_follow(struct unshard_engine *engine);

/* read_timeout.c: ends the reads for which storage has given nothing for too long. Caller holds
 * engine->lock, which is released meanwhile. */
void expire_reads(struct unshard_engine *engine, uint64_t now);

/* file_gate.c */
/* Serves nothing any more of the file, nor of gathered files that depend on it, and ends what waits
 * for them; storers take their pages away from readers. When the epoch is not the file's any more,
 * nothing happens. The caller has a reference to it. No lock held; waits for nothing. */
void file_block(struct unshard_engine *engine, const struct file_epoch *epoch,
                enum gate_reason reason, const struct unshard_error *error,
                const struct mismatch *mismatch);
/* The same of what cannot be right, before anything is served. */
void file_block_at_start(struct unshard_engine *engine, uint32_t file,
                         const struct unshard_error *error);
/* Takes the pages of one file away, if those of any are due: true. The caller, a storer, holds
 * engine->lock, which is released meanwhile. Waits for running stores of the file, and for readers
 * as a store does. */
bool file_drop_next(struct unshard_engine *engine);
/* The file is another one now, with the same layout: begins anew, and with it the gathered files
 * that depend on it, unless another shard keeps them blocked. It must be blocked, and all of them
 * clear. For the watcher's thread; no lock held. 0, or -ENOMEM: all is as it was. */
int file_reset(struct unshard_engine *engine, uint32_t file);
/* The error of a file that is blocked, was bad from the start, or of which reads fail; NULL: all is
 * well. The caller holds engine->lock; valid as long. */
const struct unshard_error *file_error(const struct unshard_engine *engine, uint32_t file);
/* What its content, or a chunk of it, should be and is. The same. */
const struct mismatch *file_mismatch(const struct file_state *file);
/* Discovery found it bad, and it is still the file that discovery saw. */
static inline bool file_failed_at_start(const struct unshard_engine *engine, uint32_t file)
{
    return engine->checkpoint->files[file].failed && epoch_is_first(engine->files[file].epoch);
}
/* It is still the file that the epoch is of, and not blocked: what was made for the epoch counts.
 * The caller holds engine->lock. */
static inline bool epoch_is_current(const struct unshard_engine *engine,
                                    const struct file_epoch *epoch)
{
    const struct file_state *file = &engine->files[epoch->file];
    return file->epoch == epoch && !gate_is_blocked(&file->gate);
}
/* Every file of which the range holds bytes is open. The caller holds engine->lock. */
bool view_is_served(const struct unshard_engine *engine, uint32_t view, uint64_t offset,
                    uint64_t end);
/* A new epoch of the file, as source_reopen has found it, with what is known of it; the caller's.
 * Takes no lock, for the watcher's thread or before there are any. NULL when memory is short. */
struct file_epoch *file_epoch_make(const struct unshard_engine *engine, uint32_t file);
/* Nothing of it, or of what it is gathered from, may be served before a verdict. The caller holds
 * engine->lock. */
bool file_must_wait(const struct unshard_engine *engine, uint32_t file);
/* The verdict is good: what was held goes on. The file is closed. The caller holds engine->lock. */
void file_open(struct unshard_engine *engine, uint32_t file);
/* Ends what is held of the file. The caller holds engine->lock and ends the waiters. */
void file_cancel_held(struct unshard_engine *engine, uint32_t file, struct waiter **waiters);

/* gathered.c */
/* Finds who depends on whom. Before any thread runs. 0 or -ENOMEM. */
int gathered_init(struct unshard_engine *engine);
/* A reader waits for the passes over its shards. The caller holds engine->lock. */
void gathered_demand(struct unshard_engine *engine, const struct gathered *gathered);
/* A shard was opened: opens the gathered files that no other one keeps closed. The caller holds
 * engine->lock. */
void gathered_source_opened(struct unshard_engine *engine, uint32_t file);
/* A shard of it is blocked: the error that it has by that; else NULL. The caller holds
 * engine->lock; valid as long. */
const struct unshard_error *gathered_error(const struct unshard_engine *engine,
                                           const struct gathered *gathered);
/* Fills the buffer of a fetch of a gathered file, with checked bytes only. No lock held. */
int gathered_read(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error);

/* How the view is laid out now. Thread-safe. */
static inline const struct extent_map *view_map(const struct unshard_engine *engine, uint32_t view)
{
    return atomic_load_explicit(&engine->views[view].map, memory_order_acquire);
}

/* plain_file.c: files that are shown as they are and belong to no component (config.json). What is
 * on disk is what readers get, whatever its length. For the watcher's thread. */
bool plain_file(const struct unshard_engine *engine, uint32_t file);
/* Nothing of the file is read, stored or hashed; of a blocked file that stays so. The caller holds
 * engine->lock. */
bool plain_file_is_quiet(const struct unshard_engine *engine, uint32_t file);
/* The file is blocked and quiet, and source_reopen has brought another one: it is begun anew, and
 * readers are told. No lock held; waits for readers as a store does. 0 or a negative errno. */
int plain_file_replace(struct unshard_engine *engine, uint32_t file);
void plain_files_free(struct unshard_engine *engine);

/* file_watch.c */
void *file_watcher(void *engine);

/* schedule.c: the caller holds engine->lock. */
/* The next chunk for reader `self` to fetch without being asked, as a fetch that is on no list;
 * NULL: nothing now. staged_only: storage must not be read for it. */
struct fetch *schedule_next(struct unshard_engine *engine, unsigned self, bool staged_only);
/* A reader asked for [offset, end) of a view; direct: one that sees nothing of the page cache. */
void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                        bool direct);
/* A reader took a sentinel page: everything since the sentinel before it has been passed. */
void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page);
/* Some of the file can be fetched that could not be: it is wanted, or served again. */
void schedule_offer(struct unshard_engine *engine, uint32_t file);
/* Some of the file is not there any more; the plan doesn't want it. */
void schedule_dropped(struct unshard_engine *engine, uint32_t file);
/* The same of all that a view shows. */
void schedule_offer_view(struct unshard_engine *engine, uint32_t view);
/* A READ of a reader that sees the page cache asks for whole pages at [offset, end) of the view,
 * of a chunk that was published, or is doubted: what was published ahead of it isn't believed any
 * more. */
void schedule_doubt(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                    struct chunk *chunk);
/* Nobody has the view open any more: readers' streams of it end. */
void schedule_closed(struct unshard_engine *engine, uint32_t view);
/* The housekeeper's share: what was put off and is due, streams that have been idle, buffers kept
 * for too long. engine->lock is released meanwhile. */
void schedule_tick(struct unshard_engine *engine, uint64_t now);
/* What was fetched for this stream is not waited for any more: it has ended. */
bool schedule_stream_ended(struct unshard_engine *engine, uint32_t number);
/* A store into the view has failed, or succeeded. */
void schedule_note_store(struct unshard_engine *engine, uint32_t view, bool failed);

/* reader.c: the caller holds engine->lock. */
/* There may be something to read: wakes a reader if it has leave to. */
void readers_wake(struct unshard_engine *engine);
/* Starts readers up to what jobs and hanging reads ask for. */
void readers_spawn(struct unshard_engine *engine);

/* storer.c: the caller holds engine->lock. */
void storers_wake(struct unshard_engine *engine);
/* Starts storers: as many as there are processors, and one more at each tick in which all were
 * blocked. */
void storers_spawn(struct unshard_engine *engine);

/* unread.c */
/* Finds the chunks that views show, and those that are gathered. Before any thread runs. 0 or
 * -ENOMEM. */
int unread_mark(struct unshard_engine *engine);
/* Of a file that is checked by chunks: what nobody will read of it although the views were planned
 * from it, once. For the file that discovery saw. No lock held. 0, or an error as of check_chunk.
 */
int unread_check(struct unshard_engine *engine, uint32_t file, const struct file_check *check,
                 struct unshard_error *error);

/* housekeeper.c */
void *housekeeper(void *engine);

/* window.c: sets window_bytes, window_limited, keep_bytes and sentinel_pages. The caller holds
 * engine->lock. */
void window_update(struct unshard_engine *engine, uint64_t available_bytes);

#endif
