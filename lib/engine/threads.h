/* SPDX-License-Identifier: MIT
 *
 * The engine's threads, and what wakes them.
 *
 * - readers read, check and answer, and leave what they have read to the storers (reader.c).
 * - storers store and drop (storer.c). They may block on a page that an unanswered read has locked;
 *   no reader ever waits for them. So every read is answered even when all storers are blocked, and
 *   by that the stores go on.
 * - the housekeeper (timer): retries, stalls, time-outs, how many reads, window.
 * - the watcher: looks whether files have changed on disk, writes the cache of digests; may hang
 *   with the storage.
 * - callers of unshard_engine_read: answer from READY buffers, or queue and return.
 */
#ifndef ENGINE_THREADS_H
#define ENGINE_THREADS_H

#include "engine/chunks.h"
#include "engine/jobs.h"
#include "engine/runs.h"

#include <pthread.h>
#include <stdbool.h>

/* Readers beyond those that storage is given unasked. */
#define READERS_FOR_DEMANDS 4U
#define MAX_READERS (JOBS_MOST + 16U)
#define MAX_STORERS 32U

struct threads {
    pthread_cond_t work;       /* for readers */
    pthread_cond_t store_work; /* for storers */
    pthread_cond_t tick;       /* for the housekeeper and the watcher: stop */
    pthread_t readers[MAX_READERS], storers[MAX_STORERS], housekeeper, watcher;
    unsigned reader_count, storer_count;
    unsigned readers_running; /* readers that have their number */
    unsigned idle_readers, idle_storers;
    bool housekeeper_running, watcher_running;
    bool look_now; /* the watcher need not wait for its next round */
    struct run run_of[MAX_READERS];
};

/* ---- readers (reader.c); the caller holds engine->lock ---- */

/* There may be something to read: wakes a reader if it has leave to. */
void readers_wake(struct unshard_engine *engine);
/* Starts readers up to what jobs and hanging reads ask for. */
void readers_spawn(struct unshard_engine *engine);
/* The caller holds engine->lock. Takes the fetch off the list of running reads. */
void end_reading(struct unshard_engine *engine, struct fetch *fetch);
/* Likewise. A chunk has been read: from storage, or (from_staging) from its copy. */
void note_success(struct unshard_engine *engine, struct fetch *fetch, bool from_staging);

/* ---- storers (storer.c); the caller holds engine->lock ---- */

/* The caller holds engine->lock. */
void storers_wake(struct unshard_engine *engine);
/* Starts storers: as many as there are processors, and one more at each tick in which all were
 * blocked. */
void storers_spawn(struct unshard_engine *engine);

/* ---- the others: what pthread_create is given ---- */

void *housekeeper(void *engine);
void *file_watcher(void *engine);

/* ---- what the log is told of reads; no lock held ---- */

/* Logs a failed read. No lock held. */
void log_failure(struct unshard_engine *engine, uint32_t file, const struct unshard_error *error,
                 bool will_retry);
/* Ends the file's failures, if there were any, and logs that. No lock held. */
void log_recovery(struct unshard_engine *engine, uint32_t file);

#endif
