/* SPDX-License-Identifier: MIT */
#include "prefetch/engine_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void wake_for_demand(struct unshard_engine *engine)
{
    if (engine->demand.count == 0)
        return;
    if (engine->idle_workers > 0 && engine->free_count > engine->reserve)
        pthread_cond_signal(&engine->work);
    else
        pthread_cond_signal(&engine->reserve_work);
}

/* A demand that may be read now. Of a file with a hanging read only one more is tried at a time, so
 * that a sick shard does not take every worker. */
static struct fetch *next_demand(struct unshard_engine *engine)
{
    for (struct fetch *fetch = engine->demand.first; fetch != NULL; fetch = fetch->next)
        if (engine->files[fetch->file].stalled <= 1) {
            fetch_list_remove(&engine->demand, fetch);
            return fetch;
        }
    return NULL;
}

/* Work for a prefetch worker: a READY chunk to store, or a chunk to read (then it has been
 * started). Caller holds engine->lock. */
static struct fetch *take_work(struct unshard_engine *engine)
{
    struct fetch *fetch = engine->stores.first;
    if (fetch != NULL) {
        fetch_list_remove(&engine->stores, fetch);
        wake_for_demand(engine);
        return fetch;
    }
    if (engine->free_count <= engine->reserve)
        return NULL;
    fetch = next_demand(engine);
    if (fetch == NULL && engine->reading_count - engine->stalled_count < engine->jobs.current) {
        fetch = schedule_next(engine);
        engine->jobs.starved = engine->jobs.starved || fetch == NULL;
    }
    if (fetch != NULL)
        fetch_start(engine, fetch);
    wake_for_demand(engine);
    return fetch;
}

static struct fetch *take_reserve_work(struct unshard_engine *engine)
{
    bool others_can = engine->idle_workers > 0 && engine->free_count > engine->reserve;
    if (engine->free_count == 0 || others_can)
        return NULL;
    struct fetch *fetch = next_demand(engine);
    if (fetch != NULL)
        fetch_start(engine, fetch);
    return fetch;
}

/* What was read once must read the same again: a chunk that was evicted and differs is an error. */
static int check_digest(struct unshard_engine *engine, struct fetch *fetch,
                        struct unshard_error *error)
{
    struct file_state *file = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    XXH128_hash_t actual = XXH3_128bits(fetch->buffer, fetch->length);
    if (!chunk->seen) { /* the digest belongs to the worker that reads the chunk */
        file->digests[fetch->index] = actual;
        return 0;
    }
    if (XXH128_isEqual(file->digests[fetch->index], actual))
        return 0;
    uint64_t offset = (uint64_t)fetch->index * engine->chunk_bytes;
    *error = (struct unshard_error){.code = "changed", .errno_value = EIO, .offset = offset};
    XXH128_hash_t expected = file->digests[fetch->index];
    snprintf(error->message, sizeof error->message,
             "%s: chunk at %llu reads differently than before: XXH3-128 was %016llx%016llx and is "
             "%016llx%016llx",
             engine->checkpoint->files[fetch->file].path, (unsigned long long)offset,
             (unsigned long long)expected.high64, (unsigned long long)expected.low64,
             (unsigned long long)actual.high64, (unsigned long long)actual.low64);
    return -EIO;
}

static void complete_all(struct waiter *waiters, const char *buffer, int error)
{
    for (struct waiter *next; waiters != NULL; waiters = next) {
        next = waiters->next;
        waiter_complete(waiters, buffer, error);
    }
}

/* Takes the fetch off the list of running reads. Caller holds engine->lock. */
static void end_reading(struct unshard_engine *engine, struct fetch *fetch)
{
    fetch_list_remove(&engine->reading, fetch);
    engine->reading_count--;
    if (fetch->stalled) {
        engine->stalled_count--;
        engine->files[fetch->file].stalled--;
        fetch->stalled = false;
    }
}

static void note_success(struct unshard_engine *engine, struct fetch *fetch)
{
    struct file_state *file = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    chunk->attempts = 0;
    if (fetch->retried)
        file->retrying--;
    fetch->retried = false;
    file->bytes_read += fetch->length;
    engine->bytes_read += fetch->length;
    if (!chunk->seen) {
        chunk->seen = true;
        file->chunks_seen++;
    }
    if (file->has_error && file->chunks_failed == 0 &&
        !engine->checkpoint->files[fetch->file].failed)
        file->has_error = file->retrying > 0;
    jobs_note_chunk(engine, fetch->length);
}

static void log_failure(struct unshard_engine *engine, uint32_t file,
                        const struct unshard_error *error, bool will_retry)
{
    engine_log(engine, will_retry ? 4 : 3,
               "event=%s shard=\"%s\" code=%s offset=%lld errno=%d message=\"%s\"",
               will_retry ? "read-retry" : "shard-failed", engine->checkpoint->files[file].path,
               error->code, error->offset == UNSHARD_NO_OFFSET ? -1LL : (long long)error->offset,
               error->errno_value, error->message);
}

/* READING -> READY with all waiting reads answered (true; the caller has the reference), or a
 * failure (false; the fetch is gone or queued again). No lock held. */
static bool read_and_answer(struct unshard_engine *engine, struct fetch *fetch)
{
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    uint32_t file = fetch->file;
    uint64_t offset = (uint64_t)fetch->index * engine->chunk_bytes;
    int result = source_read(engine->source, file, offset, fetch->buffer, fetch->length, &error);
    if (result == 0)
        result = check_digest(engine, fetch, &error);
    struct waiter *waiters = NULL;
    bool will_retry = false;
    pthread_mutex_lock(&engine->lock);
    end_reading(engine, fetch);
    if (result == 0) {
        waiters = fetch->waiters;
        fetch->waiters = NULL;
        chunk_of(engine, fetch)->state = CHUNK_READY;
        note_success(engine, fetch);
        chunk_check(engine, fetch->file, fetch->index);
    } else {
        will_retry = fetch_fail(engine, fetch, &error, &waiters);
    }
    pthread_mutex_unlock(&engine->lock);
    complete_all(waiters, result == 0 ? fetch->buffer : NULL, result == 0 ? 0 : EIO);
    if (result != 0)
        log_failure(engine, file, &error, will_retry);
    return result == 0;
}

void *prefetch_worker(void *argument)
{
    struct unshard_engine *engine = argument;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping) {
        struct fetch *fetch = take_work(engine);
        if (fetch == NULL) {
            engine->idle_workers++;
            pthread_cond_wait(&engine->work, &engine->lock);
            engine->idle_workers--;
            continue;
        }
        bool to_read = chunk_of(engine, fetch)->state == CHUNK_READING;
        pthread_mutex_unlock(&engine->lock);
        bool ready = !to_read || read_and_answer(engine, fetch);
        bool stored = ready && publish_chunk(engine, fetch);
        drop_behind(engine);
        pthread_mutex_lock(&engine->lock);
        if (ready) {
            fetch->stored = stored;
            fetch_release(engine, fetch);
        }
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

/* Leaves a READY chunk to the prefetch workers to store, if that leaves the reserve whole; else
 * lets it go: its pages come by another read. Caller holds engine->lock. */
static void hand_over(struct unshard_engine *engine, struct fetch *fetch)
{
    if (engine->free_count >= engine->reserve && !engine->no_stores && !engine->stopping) {
        fetch_list_append(&engine->stores, fetch);
        pthread_cond_signal(&engine->work);
    } else {
        fetch_release(engine, fetch);
    }
}

void *reserve_worker(void *argument)
{
    struct unshard_engine *engine = argument;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping) {
        struct fetch *fetch = take_reserve_work(engine);
        if (fetch == NULL) {
            engine->idle_reserve_workers++;
            pthread_cond_wait(&engine->reserve_work, &engine->lock);
            engine->idle_reserve_workers--;
            continue;
        }
        pthread_mutex_unlock(&engine->lock);
        bool ready = read_and_answer(engine, fetch);
        pthread_mutex_lock(&engine->lock);
        if (ready)
            hand_over(engine, fetch);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

static bool spawn(struct unshard_engine *engine, pthread_t *threads, unsigned *count,
                  void *(*main)(void *))
{
    if (pthread_create(&threads[*count], NULL, main, engine) != 0)
        return false;
    (*count)++;
    return true;
}

void workers_spawn(struct unshard_engine *engine)
{
    unsigned wanted = engine->jobs.current + engine->stalled_count;
    while (engine->worker_count < wanted && engine->worker_count < MAX_WORKERS)
        if (!spawn(engine, engine->workers, &engine->worker_count, prefetch_worker))
            break;
    unsigned reserve = 2 + engine->stalled_count;
    while (engine->reserve_worker_count < reserve &&
           engine->reserve_worker_count < MAX_RESERVE_WORKERS)
        if (!spawn(engine, engine->reserve_workers, &engine->reserve_worker_count, reserve_worker))
            break;
}
