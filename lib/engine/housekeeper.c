/* SPDX-License-Identifier: MIT
 *
 * The engine's timer: due retries, reads and looks that hang, how many reads and storers there are,
 * the window, the rate.
 */
#include "engine/budget.h"
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>

#define TICK_NS 100000000
#define WINDOW_TICKS 20
/* A read that takes longer hangs, as far as scheduling is concerned, unless reads do that here. */
#define STALL_NS UINT64_C(2000000000)
#define MOST_STALL_NS UINT64_C(60000000000)
#define REPORT_NS (REPORT_SECONDS * UINT64_C(1000000000))

static uint64_t stall_ns(const struct unshard_engine *engine)
{
    uint64_t typical = 4 * engine->traffic.typical_read_ns;
    return typical < STALL_NS ? STALL_NS : typical > MOST_STALL_NS ? MOST_STALL_NS : typical;
}

static void find_stalls(struct unshard_engine *engine, uint64_t now)
{
    uint64_t limit = stall_ns(engine);
    for (struct fetch *fetch = engine->queues.reading.first; fetch != NULL; fetch = fetch->next)
        if (!fetch->stalled && now - fetch->since_ns > limit) {
            fetch->stalled = true;
            engine->queues.staged -= fetch->counts_staged; /* each read is left out once */
            fetch->counts_staged = false;
            engine->queues.stalled++;
            engine->files[fetch->file].stalled += !fetch->orphan;
            runs_end_file(&engine->runs, fetch->file);
        }
}

/* The first read that hangs and has not been told of. Caller holds engine->lock. */
static bool find_stuck(struct unshard_engine *engine, uint64_t now, uint32_t *file,
                       uint64_t *offset)
{
    for (struct fetch *fetch = engine->queues.reading.first; fetch != NULL; fetch = fetch->next)
        if (fetch->stalled && !fetch->reported && now - fetch->since_ns > REPORT_NS) {
            fetch->reported = true;
            *file = fetch->file;
            *offset = (uint64_t)fetch->index * engine->chunk_bytes;
            return true;
        }
    return false;
}

/* Caller holds engine->lock, which is released meanwhile. */
static void report_stuck(struct unshard_engine *engine, uint64_t now)
{
    uint32_t file;
    uint64_t offset;
    char path[512];
    while (find_stuck(engine, now, &file, &offset)) {
        pthread_mutex_unlock(&engine->lock);
        engine_log(engine, 4, "event=read-stuck shard=\"%s\" offset=%llu seconds=%llu",
                   error_field(path, sizeof path, engine->checkpoint->files[file].path),
                   (unsigned long long)offset, (unsigned long long)REPORT_SECONDS);
        pthread_mutex_lock(&engine->lock);
    }
}

/* Moves waiters of requests that are read ahead, and that wait for this chunk only in part, to
 * *split: their other pages are not to wait for storage that hangs. */
static void split_waiters(struct fetch *fetch, struct waiter **split)
{
    for (struct waiter **link = &fetch->waiters, *waiter; (waiter = *link) != NULL;) {
        if (!waiter_is_part(waiter)) {
            link = &waiter->next;
            continue;
        }
        *link = waiter->next;
        waiter->next = *split;
        *split = waiter;
    }
}

/* Caller holds engine->lock, which is released meanwhile. */
static void split_stalled(struct unshard_engine *engine)
{
    struct waiter *split = NULL;
    if (engine->queues.stalled == 0)
        return;
    for (struct fetch *fetch = engine->queues.reading.first; fetch != NULL; fetch = fetch->next)
        if (fetch->stalled)
            split_waiters(fetch, &split);
    for (struct fetch *fetch = engine->queues.demand.first; fetch != NULL; fetch = fetch->next)
        if (engine->files[fetch->file].stalled > 1)
            split_waiters(fetch, &split);
    if (split == NULL)
        return;
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(split, NULL, EAGAIN);
    pthread_mutex_lock(&engine->lock);
}

static void requeue_retries(struct unshard_engine *engine, uint64_t now)
{
    for (struct fetch *fetch = engine->queues.retries.first, *next; fetch != NULL; fetch = next) {
        next = fetch->next;
        unsigned attempts = engine->files[fetch->file].chunks[fetch->index].attempts;
        if (now - fetch->since_ns < retry_delay_ns(attempts))
            continue;
        fetch_list_remove(&engine->queues.retries, fetch);
        fetch_line_up(engine, fetch);
    }
}

static void update_rate(struct unshard_engine *engine, uint64_t now)
{
    double seconds = (double)(now - engine->traffic.rate_ns) / 1e9;
    if (seconds < 0.25)
        return;
    double rate = (double)(engine->traffic.bytes_read - engine->traffic.rate_bytes) / seconds;
    double weight = seconds / (seconds + 2.0); /* forgets over a few seconds */
    engine->traffic.rate += weight * (rate - engine->traffic.rate);
    engine->traffic.rate_ns = now;
    engine->traffic.rate_bytes = engine->traffic.bytes_read;
}

/* What was lent and has come back, and was not lent again since the last time. Caller holds
 * engine->lock, which is released meanwhile. */
static void give_spare_memory_back(struct unshard_engine *engine)
{
    for (char *buffer; (buffer = buffers_take_unused(&engine->buffers)) != NULL;) {
        pthread_mutex_unlock(&engine->lock);
        madvise(buffer, engine->chunk_bytes, MADV_DONTNEED);
        pthread_mutex_lock(&engine->lock);
        buffers_put_empty(&engine->buffers, buffer);
    }
    buffers_begin_count(&engine->buffers);
}

void *housekeeper(void *argument)
{
    struct unshard_engine *engine = argument;
    pthread_mutex_lock(&engine->lock);
    for (unsigned tick = 0; !engine->stopping; tick++) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&engine->threads.tick, &engine->lock, &until);
        if (tick % WINDOW_TICKS == WINDOW_TICKS - 1) {
            pthread_mutex_unlock(&engine->lock);
            look_reports_update(engine);
            uint64_t available = unshard_available_memory();
            pthread_mutex_lock(&engine->lock);
            if (engine->options.prefetch == UNSHARD_PREFETCH_OPEN)
                budget_make_room(engine, 0, UINT64_MAX, available);
            window_update(engine, available);
            pass_unstage(engine, engine_now_ns());
            give_spare_memory_back(engine);
        }
        uint64_t now = engine_now_ns();
        requeue_retries(engine, now);
        schedule_tick(engine, now);
        find_stalls(engine, now);
        jobs_adapt(&engine->jobs, now);
        update_rate(engine, now);
        split_stalled(engine);
        report_stuck(engine, now);
        expire_reads(engine, now);
        if (!engine->stopping) {
            readers_spawn(engine);
            storers_spawn(engine);
        }
        readers_wake(engine);
    }
    pthread_mutex_unlock(&engine->lock);
    look_reports_free(&engine->look_reports);
    return NULL;
}
