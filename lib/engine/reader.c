/* SPDX-License-Identifier: MIT
 *
 * Readers read, check, answer who waits, and leave what they have read to the storers. They never
 * store nor drop, so a read waits for storage alone. There are some more of them than reads that
 * storage is given unasked (jobs.h): these take what is asked for, and go on with a pass that
 * somebody waits for, while the others wait for storage.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* Bad chunks of one file are told of one by one up to here. */
#define MOST_LASTING_TOLD 16U

/* Storage may be given another read that nobody waits for. */
static bool may_read(const struct unshard_engine *engine)
{
    return engine->queues.reading.count - engine->queues.stalled - engine->queues.staged <
           jobs_allowed(&engine->jobs);
}

/* Something may be fetched unasked: there are buffers, and the storers keep pace. */
static bool may_fetch(const struct unshard_engine *engine)
{
    return buffers_may_fetch(&engine->buffers, 0) &&
           engine->queues.stores.count < engine->pages.most_queued;
}

void readers_wake(struct unshard_engine *engine)
{
    bool work =
        engine->queues.demand.count > 0 || may_fetch(engine) || engine->passes.demanded.count > 0;
    if (engine->threads.idle_readers > 0 && work)
        pthread_cond_signal(&engine->threads.work);
}

/* There is a buffer for the demand: it has one, is kept in one, or one is free. */
static bool has_buffer(struct unshard_engine *engine, const struct fetch *fetch)
{
    if (fetch->buffer != NULL || kept_has(&engine->buffers.kept, fetch->file, fetch->index))
        return true;
    buffers_reclaim(&engine->buffers, 0);
    return engine->buffers.free_count > 0;
}

/* A demand that may be read now. Of a file with a hanging read only one more is tried at a time, so
 * that a sick shard does not take every reader. */
static struct fetch *next_demand(struct unshard_engine *engine)
{
    for (struct fetch *fetch = engine->queues.demand.first; fetch != NULL; fetch = fetch->next)
        if (engine->files[fetch->file].stalled <= 1 && has_buffer(engine, fetch)) {
            fetch_list_remove(&engine->queues.demand, fetch);
            return fetch;
        }
    return NULL;
}

/* What is prefetched may wait in its buffer for a store that is blocked: one buffer is left to
 * passes, so that storage is read meanwhile. */
static bool may_prefetch(const struct unshard_engine *engine)
{
    return buffers_may_fetch(&engine->buffers, pass_remains(engine) ? 1 : 0);
}

/* What to fetch without being asked for just this: passes and prefetching in turn, so that storage
 * is kept busy and what has been verified is published meanwhile; of the latter no more at a time
 * than there are processors for, while there are passes. Started. */
static struct fetch *next_unasked(struct unshard_engine *engine, unsigned self)
{
    bool reads = may_read(engine);
    bool pass_first = reads && (2 * engine->passes.reading < jobs_allowed(&engine->jobs) ||
                                engine->pages.stores_running >= engine->processors);
    struct fetch *fetch = pass_first ? pass_next(engine) : NULL;
    if (fetch == NULL && may_prefetch(engine) &&
        (fetch = schedule_next(engine, self, !reads)) != NULL)
        fetch_start(engine, fetch);
    if (fetch == NULL && reads && !pass_first)
        fetch = pass_next(engine);
    if (reads && fetch == NULL)
        jobs_note_starved(&engine->jobs);
    return fetch;
}

/* A chunk to read, started; NULL: nothing now. The last buffer is for demands, so that passes with
 * hanging reads keep nothing else waiting. Caller holds engine->lock. */
static struct fetch *take_work(struct unshard_engine *engine, unsigned self)
{
    engine->plan.search_on = false;
    struct fetch *fetch = next_demand(engine);
    if (fetch != NULL) {
        fetch_start(engine, fetch);
    } else if (may_fetch(engine)) {
        buffers_reclaim(&engine->buffers, engine->buffers.reserve);
        fetch = next_unasked(engine, self);
    } else if (engine->buffers.free_count > 1 && may_read(engine)) {
        fetch = pass_next_demanded(engine);
    }
    if (fetch != NULL && (may_read(engine) || engine->queues.demand.count > 0))
        readers_wake(engine); /* there may be more */
    return fetch;
}

void waiters_complete(struct waiter *waiters, const char *buffer, int error)
{
    for (struct waiter *next; waiters != NULL; waiters = next) {
        next = waiters->next;
        waiter_complete(waiters, buffer, error);
    }
}

void end_reading(struct unshard_engine *engine, struct fetch *fetch)
{
    fetch_list_remove(&engine->queues.reading, fetch);
    if (engine->queues.reading.count == 0)
        engine->traffic.reading_ns += engine_now_ns() - engine->traffic.reading_since_ns;
    engine->passes.reading -= fetch->detached;
    engine->queues.staged -= fetch->counts_staged;
    fetch->counts_staged = false;
    if (fetch->stalled) {
        engine->queues.stalled--;
        fetch->stalled = false;
        if (!fetch->orphan && --engine->files[fetch->file].stalled == 0)
            schedule_offer(engine, fetch->file);
    }
}

/* Of the last dozen reads or so. */
static void note_duration(struct unshard_engine *engine, uint64_t ns)
{
    engine->traffic.typical_read_ns += ns / 8;
    engine->traffic.typical_read_ns -= engine->traffic.typical_read_ns / 8;
}

void note_success(struct unshard_engine *engine, struct fetch *fetch, bool from_staging)
{
    struct file_state *file = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    chunk->attempts = 0;
    if (fetch->retried)
        file->retrying--;
    fetch->retried = false;
    if (!from_staging) {
        file->bytes_read += fetch->length;
        engine->traffic.bytes_read += fetch->length;
        jobs_note_read(&engine->jobs, fetch->length, fetch->from_memory);
        engine->traffic.given_ns = file->given_ns = engine_now_ns();
        note_duration(engine, engine->traffic.given_ns - fetch->since_ns);
        file->reading_ns += engine->traffic.given_ns - fetch->since_ns;
    }
    file->rests = 0;
    if (file->wanted.rest_until_ns != 0) { /* storage gives again */
        wanted_rest(&file->wanted, 0);
        schedule_offer(engine, fetch->file);
    }
    if (!chunk->seen) {
        chunk->seen = true;
        outliving_mark(file, fetch->index);
        bool shown = !chunk_is_unshown(file, fetch->index);
        file->chunks_seen += shown;
        file->bytes_seen += shown ? fetch->length : 0;
    }
    if (file->failing && file->chunks_failed == 0)
        file->failing = file->retrying > 0;
}

/* Whether the log is told of one more failure. */
static bool is_told(struct failure_episode *episode, bool transient, bool will_retry)
{
    if (episode->count++ == 0)
        episode->since_ns = engine_now_ns();
    if (!transient)
        return episode->lasting_told++ < MOST_LASTING_TOLD;
    if (will_retry)
        return episode->count == 1;
    bool told = episode->failed_told;
    episode->failed_told = true;
    return !told;
}

void log_failure(struct unshard_engine *engine, uint32_t file, const struct unshard_error *error,
                 bool will_retry)
{
    char path[512], message[2048];
    pthread_mutex_lock(&engine->lock);
    bool told = is_told(&engine->files[file].episode, error_is_transient(error), will_retry);
    pthread_mutex_unlock(&engine->lock);
    if (!told)
        return;
    engine_log(engine, will_retry ? 4 : 3,
               "event=%s shard=\"%s\" code=%s offset=%lld errno=%d message=\"%s\"",
               will_retry ? "read-retry" : "shard-failed",
               error_field(path, sizeof path, engine->checkpoint->files[file].path), error->code,
               error->offset == UNSHARD_NO_OFFSET ? -1LL : (long long)error->offset,
               error->errno_value, error_field(message, sizeof message, error->message));
}

void log_recovery(struct unshard_engine *engine, uint32_t file)
{
    char path[512];
    pthread_mutex_lock(&engine->lock);
    struct failure_episode episode = engine->files[file].episode;
    bool over = episode.count > 0 && file_error(engine, file) == NULL;
    if (over)
        engine->files[file].episode = (struct failure_episode){0};
    pthread_mutex_unlock(&engine->lock);
    if (over)
        engine_log(engine, 5, "event=shard-recovered shard=\"%s\" failures=%llu seconds=%.1f",
                   error_field(path, sizeof path, engine->checkpoint->files[file].path),
                   (unsigned long long)episode.count,
                   (double)(engine_now_ns() - episode.since_ns) / 1e9);
}

/* Fills the buffer, unless it is full. No lock held. */
static int read_chunk(struct unshard_engine *engine, struct fetch *fetch,
                      struct unshard_error *error)
{
    if (fetch->kept || fetch->staged || (fetch->from_pages && retrieve_chunk(engine, fetch)))
        return 0;
    fetch->from_pages = false;
    if (engine->checkpoint->files[fetch->file].gathered != NULL) {
        int gathered = gathered_read(engine, fetch, error);
        return gathered == 0 ? check_chunk(engine, fetch, error) : gathered;
    }
    int result =
        source_read(engine->source, fetch->file, (uint64_t)fetch->index * engine->chunk_bytes,
                    fetch->buffer, fetch->length, &fetch->from_memory, error);
    return result == 0 ? check_chunk(engine, fetch, error) : result;
}

/* The file is not the one that was read, or nothing of it is to be served. Caller holds
 * engine->lock. */
static int check_current(struct unshard_engine *engine, const struct fetch *fetch,
                         struct unshard_error *error)
{
    if (!fetch->orphan && gate_is_open(&engine->files[fetch->file].gate))
        return check_observed(engine, fetch, error);
    *error = (struct unshard_error){
        .code = "changed", .errno_value = ESTALE, .offset = UNSHARD_NO_OFFSET};
    snprintf(error->message, sizeof error->message, "%s: changed while it was read",
             engine->checkpoint->files[fetch->file].path);
    return -ESTALE;
}

/* READING -> READY with all waiting reads answered (true; the caller has the reference), or a
 * failure (false; the fetch is gone or queued again). No lock held. */
static bool read_and_answer(struct unshard_engine *engine, struct fetch *fetch)
{
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    struct file_epoch *epoch = epoch_hold(fetch->epoch);
    uint32_t file = fetch->file;
    int result = read_chunk(engine, fetch, &error);
    struct waiter *waiters = NULL;
    bool will_retry = false, recovered = false;
    pthread_mutex_lock(&engine->lock);
    end_reading(engine, fetch);
    if (result == 0)
        result = check_current(engine, fetch, &error);
    if (result == 0) {
        waiters = fetch->waiters;
        fetch->waiters = NULL;
        chunk_of(engine, fetch)->state = CHUNK_READY;
        fetch->answered = true;
        note_success(engine, fetch, fetch->staged || fetch->kept || fetch->from_pages);
        recovered = engine->files[file].episode.count > 0 && file_error(engine, file) == NULL;
        if (fetch->pass)
            fetch_hold(fetch);
        chunk_check(engine, fetch->file, fetch->index);
    } else {
        will_retry = fetch_fail(engine, fetch, &error, &waiters);
    }
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(waiters, result == 0 ? fetch->buffer : NULL, result == 0 ? 0 : EIO);
    if (result != 0 && strcmp(error.code, HEADER_MISMATCH) == 0)
        file_block(engine, epoch, GATE_HEADER, &error, NULL);
    else if (result != 0)
        log_failure(engine, file, &error, will_retry);
    else if (recovered)
        log_recovery(engine, file);
    epoch_release(epoch);
    return result == 0;
}

/* Leaves a READY chunk to the storers, unless there is nothing to store or they have their share of
 * the buffers: then its pages come by another read. Caller holds engine->lock. */
static void hand_over(struct unshard_engine *engine, struct fetch *fetch)
{
    bool full =
        engine->queues.stores.count + engine->pages.storing >= buffers_for_stores(&engine->buffers);
    if (fetch->stored || full || engine->stopping || !publish_is_wanted(engine, fetch)) {
        fetch->refused = full;
        fetch_release(engine, fetch);
        return;
    }
    fetch_list_append(&engine->queues.stores, fetch);
    storers_wake(engine);
}

static void do_work(struct unshard_engine *engine, struct fetch *fetch)
{
    if (fetch->detached) {
        pass_read(engine, fetch);
        return;
    }
    if (!read_and_answer(engine, fetch))
        return;
    bool for_pass = fetch->pass; /* which has a reference of its own */
    pthread_mutex_lock(&engine->lock);
    hand_over(engine, fetch);
    pthread_mutex_unlock(&engine->lock);
    if (for_pass)
        pass_arrived(engine, fetch);
}

static void *reader(void *argument)
{
    struct unshard_engine *engine = argument;
    pthread_mutex_lock(&engine->lock);
    unsigned self = engine->threads.readers_running++;
    while (!engine->stopping) {
        struct fetch *fetch = take_work(engine, self);
        if (fetch == NULL && engine->plan.search_on) { /* others have had no turn for long */
            pthread_mutex_unlock(&engine->lock);
            sched_yield();
            pthread_mutex_lock(&engine->lock);
            continue;
        }
        if (fetch == NULL) {
            engine->threads.idle_readers++;
            pthread_cond_wait(&engine->threads.work, &engine->lock);
            engine->threads.idle_readers--;
            continue;
        }
        pthread_mutex_unlock(&engine->lock);
        do_work(engine, fetch);
        pthread_mutex_lock(&engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

void readers_spawn(struct unshard_engine *engine)
{
    unsigned wanted = jobs_allowed(&engine->jobs) + READERS_FOR_DEMANDS + engine->queues.stalled;
    while (engine->threads.reader_count < wanted && engine->threads.reader_count < MAX_READERS &&
           pthread_create(&engine->threads.readers[engine->threads.reader_count], NULL, reader,
                          engine) == 0)
        engine->threads.reader_count++;
    engine->runs.count = engine->threads.reader_count;
}
