/* SPDX-License-Identifier: MIT
 *
 * The whole engine: its parts put together, for the drivers above them.
 *
 * Parts that know of nothing but themselves, each tested alone: buffers, kept, staging, wanted,
 * chunk_runs, gate, epoch, streams, runs, jobs, held_pages. What chunks, files, pages, passes and
 * the scheduler do concerns several of them, so they are given the engine; each has its own fields
 * in it and its own header, which says who calls it and how.
 *
 * Locks: engine->attaching is taken before engine->lock, which protects all that is not marked
 * otherwise; held_pages has its own, which is not taken while one of these is held. No lock is held
 * across a source read, a store, a `done` or a log call. One lock for all parts is enough: it is
 * held for 7 to 9 microseconds a chunk.
 */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H

#include "base/number_set.h"
#include "base/xxh3.h"
#include "engine/buffers.h"
#include "engine/chunks.h"
#include "engine/files.h"
#include "engine/held_pages.h"
#include "engine/jobs.h"
#include "engine/look_reports.h"
#include "engine/outliving.h"
#include "engine/pages.h"
#include "engine/passes.h"
#include "engine/plan.h"
#include "engine/reads.h"
#include "engine/runs.h"
#include "engine/schedule.h"
#include "engine/staging.h"
#include "engine/streams.h"
#include "engine/threads.h"
#include "engine/told.h"
#include "engine/trust.h"
#include "engine/window.h"
#include "store/source.h"
#include "tree/model.h"
#include "tree/registry.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAGE_BYTES UINT64_C(4096)
#define DEFAULT_CHUNK_BYTES (UINT64_C(2) << 20)
#define DEFAULT_BUFFER_BYTES (UINT64_C(256) << 20)
#define LEAST_HELD_PAGES 4096U
#define DEFAULT_READ_TIMEOUT_SECONDS 300.0

/* Those of all files and views that something waits for; some may have no more to wait for. */
struct agenda {
    struct number_set holding;     /* files with fetches in `held` */
    struct number_set putting_off; /* files of which something is wanted at a later time */
    struct number_set resting;     /* views with store_rest_ns */
    struct number_set suspects;    /* files to look at soon, and for as long as they are blocked */
    struct number_set arrived;     /* files that are to be watched, perhaps */
    struct number_set unneeded;    /* views: one of each group that may be needed by nobody */
    struct number_set giving_back; /* views that left the plan, and whose pages go */
    struct number_set leaving;     /* files that perhaps no view has any more */
    /* Of the watcher's thread: files whose permissions are others, and views to look at for that */
    struct number_set permissions_changed, views_to_follow;
};

/* What has come from storage and what was asked for. */
struct traffic {
    uint64_t given_ns;                     /* when storage last gave something */
    uint64_t asked_ns;                     /* when a reader last asked for something */
    uint64_t typical_read_ns;              /* how long reads of storage take these days */
    uint64_t reading_ns, reading_since_ns; /* with reads under way: before, and since when now */
    uint64_t bytes_read, reads, reads_failed;
    double rate; /* bytes a second, of the last few seconds */
    uint64_t rate_bytes, rate_ns;
};

/* The directory that is mounted; of the watcher's thread but for the error. */
struct root_state {
    bool gone;     /* its path leads nowhere; the error says since when */
    bool followed; /* it has led to another directory */
    struct unshard_error error;
};

struct unshard_engine {
    /* const after start */
    const struct unshard_checkpoint *checkpoint; /* what there is of all: registry.all */
    struct unshard_fetch_options options;
    struct unshard_publisher publisher;
    struct source *source;
    uint64_t start_ns;
    uint32_t chunk_bytes;
    unsigned processors; /* that there are */

    struct held_pages held; /* has a lock of its own */
    atomic_uint observers;  /* statuses that point into registry */

    struct look_reports look_reports; /* of the housekeeper's thread */

    pthread_mutex_t attaching; /* of what comes and what leaves, see admit.c */
    struct registry registry;  /* counts, and what is needed, change under both locks */

    pthread_mutex_t lock; /* of all that follows */
    struct file_state *files;
    struct view_state *views;
    uint64_t epochs_begun; /* how often a file has begun anew */
    struct buffers buffers;
    struct staging staging;
    struct fetch_queues queues;
    struct pages pages;
    struct window window;
    struct streams streams;
    struct runs runs;
    struct plan plan;
    struct jobs jobs;
    struct trust trust;
    struct outliving outliving;
    struct passes passes;
    struct agenda agenda;
    struct traffic traffic;
    struct root_state root;
    struct told told;
    struct threads threads;
    bool stopping;
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

/* How the view is laid out now. Thread-safe. */
static inline const struct extent_map *view_map(const struct unshard_engine *engine, uint32_t view)
{
    return atomic_load_explicit(&engine->views[view].map, memory_order_acquire);
}
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

#endif
