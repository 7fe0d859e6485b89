/* SPDX-License-Identifier: MIT
 *
 * What the engine knows of each source file and of each view: a file's chunks, its epoch and gate,
 * what has failed; a view's layout, who has it open, what its stores do. The engine has an array of
 * each; the parts that follow take their numbers.
 */
#ifndef ENGINE_FILES_H
#define ENGINE_FILES_H

#include "base/number_list.h"
#include "digest/expectation.h"
#include "engine/chunk_runs.h"
#include "engine/chunks.h"
#include "engine/epoch.h"
#include "engine/gate.h"
#include "engine/wanted.h"
#include "tree/model.h"

#include <stdatomic.h>

struct adoption;
struct outliving_file;
struct check_pass;
struct chunk_tag;

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
    bool used;                 /* the number is that of a file; in arrays of the engine only */
    struct chunk *chunks;      /* lazy: nothing is written to those that nothing happens to */
    struct chunk_tag *digests; /* of chunks that are `seen`; lazy too, or in `outlives` */
    struct outliving_file *outlives; /* what is kept of it (outliving.h); NULL: nothing is */
    struct unshard_keep *keep;       /* then: where */
    bool inherits;                   /* ... and it is of an earlier process */
    uint64_t *touched;               /* see chunk_next_touched */
    struct wanted wanted;            /* which of them are to be fetched unasked */
    struct chunk_runs shown;         /* some view shows some of them; the others need not be read */
    struct chunk_runs gathered;      /* some of them is gathered */
    struct file_epoch *epoch;        /* the current one; referenced */
    struct gate gate;
    unsigned stores;  /* of its chunks, and of pages with bytes of it, running */
    unsigned orphans; /* fetches that its chunks have let go of and that are not gone yet */
    uint32_t chunks_checked;
    uint64_t bytes_seen;
    struct check_pass *pass;
    bool pass_demanded;     /* a reader waits for it */
    uint64_t pass_retry_ns; /* not to be tried again before */
    uint32_t chunk_count;
    /* These change under engine->attaching and engine->lock: either is enough to read them. */
    struct number_list views;      /* that show some of it */
    struct number_list dependents; /* gathered files that take bytes from it */
    uint32_t stalled;              /* reads in flight that hang */
    uint64_t size;                 /* bytes that views may ask for: past the end reads fail */
    uint64_t bytes_read, bytes_published; /* published: without unshown ones */
    uint64_t given_ns;                    /* when storage last gave some of it */
    uint64_t reading_ns;                  /* that its reads have taken, each by itself */
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
    bool planned;     /* it is in the plan */
    bool evicted;     /* by request: not prefetched */
    bool others_may;  /* owner, group or mode are not those of its node: these are */
    struct permissions permissions;
    uint64_t model;          /* views of one model leave the plan together */
    uint64_t used_ns;        /* when it was read last, opened or closed */
    unsigned opened;         /* handles */
    unsigned direct;         /* ... of these with O_DIRECT */
    unsigned storing;        /* stores into it that run */
    unsigned store_failures; /* in a row */
    uint64_t store_rest_ns;  /* nothing is fetched unasked for it before; 0: does not rest */
    uint64_t planned_to;     /* before here the plan has nothing to fetch now */
    bool plan_waits;         /* ... but will have, when something changes that is told of */
};

/* The view in a place of the file's list; false: there are no more. Takes engine->lock: for who
 * does something with each of them without the lock. Those that come meanwhile may be missed. */
bool file_view(struct unshard_engine *engine, uint32_t file, uint32_t place, uint32_t *view);

/* No view shows any of it. */
static inline bool chunk_is_unshown(const struct file_state *file, uint32_t index)
{
    return !chunk_runs_have(&file->shown, index);
}

/* ---- chunks of a file (file_chunks.c) ---- */

/* Chunks for `size` bytes, as the files begin; *file has nothing of them yet. 0, -EFBIG or -ENOMEM,
 * then nothing is left of it. */
int file_chunks_make(const struct unshard_engine *engine, struct file_state *file, uint64_t size);
void file_chunks_free(struct file_state *file);

/* Nothing of what the view shows is believed to be in the page cache any more. The caller holds
 * engine->lock. */
void view_forget(struct unshard_engine *engine, uint32_t view);

/* ---- errors (chunk.c); the caller holds engine->lock ---- */

/* Where it is noted what is wrong with the file; NULL: memory is short. The caller holds
 * engine->lock. */
struct file_trouble *file_trouble(struct file_state *file);
/* A read of the file has failed. The caller holds engine->lock. */
void file_note_error(struct file_state *file, const struct unshard_error *error);
/* The error of a file that is blocked, was bad from the start, or of which reads fail; NULL: all is
 * well. The caller holds engine->lock; valid as long. */
const struct unshard_error *file_error(const struct unshard_engine *engine, uint32_t file);
/* What its content, or a chunk of it, should be and is. The same. */
const struct mismatch *file_mismatch(const struct file_state *file);

/* ---- the gate, and what follows from it (file_gate.c) ---- */

/* Serves nothing any more of the file, nor of gathered files that depend on it, and ends what waits
 * for them; storers take their pages away from readers. When the epoch is not the file's any more,
 * nothing happens. The caller has a reference to it. No lock held; waits for nothing. */
void file_block(struct unshard_engine *engine, const struct file_epoch *epoch,
                enum gate_reason reason, const struct unshard_error *error,
                const struct mismatch *mismatch);
/* The same of what cannot be right, before anything is served. */
void file_block_at_start(struct unshard_engine *engine, uint32_t file,
                         const struct unshard_error *error);
/* The same of one that is gathered from a file that is blocked. */
void file_block_dependent_at_start(struct unshard_engine *engine, uint32_t file,
                                   const struct unshard_error *error);
/* Takes the pages of one file away, if those of any are due: true. The caller, a storer, holds
 * engine->lock, which is released meanwhile. Waits for running stores of the file, and for readers
 * as a store does. */
bool file_drop_next(struct unshard_engine *engine);
/* The file is another one now, with the same layout: begins anew, and with it the gathered files
 * that depend on it, unless another shard keeps them blocked. It must be blocked, and all of them
 * clear. For the watcher's thread; no lock held. 0, or -ENOMEM: all is as it was. */
int file_reset(struct unshard_engine *engine, uint32_t file);
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

/* ---- gathered files (gathered.c) ---- */

/* A new one whose shards are blocked already is blocked with them. The caller holds engine->lock.
 */
void gathered_block_at_start(struct unshard_engine *engine, uint32_t file);
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

/* ---- files that are shown as they are and belong to no component, such as config.json: what is on
 * disk is what readers get, whatever its length (plain_file.c) ---- */

/* It is one. The caller holds engine->lock. */
bool plain_file(const struct unshard_engine *engine, uint32_t file);
/* Nothing of the file is read, stored or hashed; of a blocked file that stays so. The caller holds
 * engine->lock. */
bool plain_file_is_quiet(const struct unshard_engine *engine, uint32_t file);
/* The file is blocked and quiet, and source_reopen has brought another one: it is begun anew, and
 * readers are told. No lock held; waits for readers as a store does. 0 or a negative errno. */
int plain_file_replace(struct unshard_engine *engine, uint32_t file);
void plain_maps_free(struct view_state *view);

/* ---- names of the same file (same_file.c) ---- */

/* Before there are threads, and files. 0 or -ENOMEM. */
int same_files_init(struct unshard_engine *engine);
void same_files_free(struct unshard_engine *engine);
/* A new file, of which a pass has to tell: joins the ring of its names. The caller holds
 * engine->lock. */
void same_file_add(struct unshard_engine *engine, uint32_t file);
void same_file_remove(struct unshard_engine *engine, uint32_t file);
/* The name of the file `number` that comes after its name `at`; `number` itself when there is none
 * any more. The caller holds engine->lock. */
uint32_t same_file_next(const struct unshard_engine *engine, uint32_t number, uint32_t at);

/* ---- permissions of views (view_permissions.c) ---- */

/* Owner, group and mode of the view as its files are now. Caller holds engine->lock. */
struct permissions view_permissions(const struct unshard_engine *engine, uint32_t view);
/* The file's are not what they were. For the watcher's thread. */
void view_permissions_note(struct unshard_engine *engine, uint32_t file);
/* Tells the publisher of the views that are concerned by what was noted. No lock held; for the
 * watcher's thread. */
void view_permissions_follow(struct unshard_engine *engine);

/* ---- what nobody will read (unread.c) ---- */

/* Finds the chunks of new files that views show, and those that are gathered. Before anybody knows
 * of them. 0 or -ENOMEM. */
int unread_mark(struct unshard_engine *engine, const struct adoption *new);
/* Of a file that is checked by chunks: what nobody will read of it although the views were planned
 * from it, once. For the file that discovery saw. No lock held. 0, or an error as of check_chunk.
 */
int unread_check(struct unshard_engine *engine, uint32_t file, const struct file_check *check,
                 struct unshard_error *error);

#endif
