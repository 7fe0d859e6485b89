/* SPDX-License-Identifier: MIT
 *
 * One pass over a file of which only a digest of the whole is known.
 *
 * It reads its file's chunks in order, several at once, and feeds them to one hasher, in order:
 * whoever brings the chunk whose turn it is hashes it, and all that follow and are there already.
 * So every pass hashes on one thread at a time, several passes on several, and none of them waits.
 *
 * verify=strict: the file is `closed` meanwhile. Its chunks are read by detached fetches, which
 * belong to no reader; reads of the file are held. What came from storage is staged, as far as
 * there is room, when it has been hashed. When the digest matches, the digests of all chunks, taken
 * on the way, are trusted from then on: the file is opened, what is staged is served as it is, and
 * every chunk that is read again (from the page cache below, or from storage) is checked by
 * itself.
 * verify=async: chunks are served as they come, and hashed besides; only what was read out of order
 * before the pass got there is read again by a detached fetch.
 *
 * Memory: a pass runs at most `reach` chunks ahead of its hasher, and only as many passes are begun
 * unasked as there are processors. A detached fetch that must be tried again keeps its buffer: it
 * is what the others wait for. It is tried again as any other is.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASS_SLOTS 64U
#define PASS_RETRY_NS UINT64_C(1000000000)

struct check_pass {
    struct hasher *hasher;
    struct fetch *arrived[PASS_SLOTS]; /* by index modulo PASS_SLOTS */
    struct file_epoch *epoch;          /* that it is made over; referenced */
    uint32_t next_read, next_hash;
    unsigned in_flight; /* fetches that are read, wait or are hashed */
    uint64_t reserved;  /* what it may stage yet */
    bool hashing, failed;
    bool in_memory; /* what was read last came out of memory: the processor is what it waits for */
};

static void pass_free(struct unshard_engine *engine, struct file_state *file)
{
    struct check_pass *pass = file->pass;
    engine->staging.reserved -= pass->reserved;
    engine->passes.running--;
    engine->passes.in_memory -= pass->in_memory;
    hasher_free(pass->hasher);
    number_set_remove(&engine->passes.under_way, pass->epoch->file);
    epoch_release(pass->epoch);
    free(pass);
    file->pass = NULL;
    readers_wake(engine); /* for another pass, or for what has waited for this one */
}

/* ---- beginning ---------------------------------------------------------------------------------
 */

/* How much of the file may be staged, from its start. False: there is not enough room for all of it
 * now, and there is time. */
static bool find_room(const struct unshard_engine *engine, const struct file_state *file,
                      bool demanded, uint64_t *reserve)
{
    const struct staging *staging = &engine->staging;
    uint64_t cost = staging_cost(staging, file->size), room = staging_room(staging);
    *reserve = 0;
    if (engine->options.verify != UNSHARD_VERIFY_STRICT)
        return true;
    *reserve = cost <= room ? cost : room;
    return cost <= room || demanded || staging->bytes + staging->reserved == 0;
}

bool pass_begin(struct unshard_engine *engine, uint32_t number, bool demanded)
{
    struct file_state *file = &engine->files[number];
    uint64_t reserve;
    if (engine_now_ns() < file->pass_retry_ns ||
        (!demanded && engine->passes.running >= engine->passes.most) ||
        !find_room(engine, file, demanded, &reserve))
        return false;
    struct check_pass *pass = calloc(1, sizeof *pass);
    if (pass == NULL)
        return false;
    pass->hasher = hasher_new(file->epoch->whole->digest.algorithm, file->size);
    if (pass->hasher == NULL) {
        free(pass);
        return false;
    }
    pass->epoch = epoch_hold(file->epoch);
    pass->reserved = reserve;
    engine->staging.reserved += reserve;
    engine->passes.running++;
    number_set_add(&engine->passes.under_way, number);
    file->pass = pass;
    return true;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* There is nothing to gain from reading ahead in memory: one thread that reads and hashes in turn
 * finds the bytes in its cache. */
static uint32_t reach(const struct unshard_engine *engine, const struct check_pass *pass)
{
    if (pass->in_memory)
        return 1;
    size_t share = buffers_for_stores(&engine->buffers) / 2 / (engine->passes.running + 1U);
    return share < 2 ? 2 : share > PASS_SLOTS ? PASS_SLOTS : (uint32_t)share;
}

static struct fetch *detached_fetch(struct unshard_engine *engine, uint32_t number, uint32_t index)
{
    struct file_state *file = &engine->files[number];
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    chunk_touch(file, index);
    fetch->file = number;
    fetch->index = index;
    fetch->length = chunk_length(engine, number, index);
    fetch->pass = fetch->detached = true;
    fetch_start(engine, fetch);
    return fetch;
}

struct fetch *pass_read_next(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    struct check_pass *pass = file->pass;
    while (!pass->failed && pass->next_read < file->chunk_count &&
           pass->next_read < pass->next_hash + reach(engine, pass)) {
        uint32_t index = pass->next_read;
        struct fetch *fetch = file->chunks[index].fetch;
        uint8_t state = file->chunks[index].state;
        bool open = gate_is_open(&file->gate);
        bool adopt = open && (state == CHUNK_QUEUED || state == CHUNK_READING);
        if (adopt) {
            fetch->pass = true;
        } else if (open && state == CHUNK_ABSENT) {
            fetch = fetch_create(engine, number, index);
            if (fetch == NULL)
                return NULL;
            fetch->pass = true;
            fetch_start(engine, fetch);
        } else if ((fetch = detached_fetch(engine, number, index)) == NULL) {
            return NULL;
        }
        pass->next_read++;
        pass->in_flight++;
        if (!adopt)
            return fetch;
    }
    return NULL;
}

/* ---- the end of a pass -------------------------------------------------------------------------
 */

/* What was read and hashed stays until the verdict, as far as there is room. Caller holds
 * engine->lock. */
static bool stage(struct unshard_engine *engine, struct fetch *fetch)
{
    struct check_pass *pass = engine->files[fetch->file].pass;
    uint64_t before = engine->staging.bytes;
    if (!fetch->stages || pass->reserved < fetch->length || !epoch_is_current(engine, pass->epoch))
        return false;
    if (!fetch_stage(engine, fetch))
        return false;
    uint64_t taken = engine->staging.bytes - before;
    taken = taken < pass->reserved ? taken : pass->reserved;
    pass->reserved -= taken;
    engine->staging.reserved -= taken;
    return true;
}

/* The fetch is done with. Caller holds engine->lock. */
static void pass_drop(struct unshard_engine *engine, struct fetch *fetch)
{
    engine->files[fetch->file].pass->in_flight--;
    if (!fetch->detached) {
        fetch_release(engine, fetch);
        return;
    }
    if (!stage(engine, fetch))
        fetch_return_buffer(engine, fetch);
    fetch_free(fetch);
}

/* Frees a failed pass once nothing of it is under way. Caller holds engine->lock. */
static void pass_settle(struct unshard_engine *engine, struct file_state *file)
{
    struct check_pass *pass = file->pass;
    for (unsigned i = 0; i < PASS_SLOTS; i++)
        if (pass->arrived[i] != NULL) {
            pass_drop(engine, pass->arrived[i]);
            pass->arrived[i] = NULL;
        }
    if (pass->in_flight == 0 && !pass->hashing)
        pass_free(engine, file);
}

static void pass_give_up(struct unshard_engine *engine, struct file_state *file)
{
    file->pass->failed = true;
    file->pass_retry_ns = engine_now_ns() + PASS_RETRY_NS;
    pass_settle(engine, file);
}

void pass_void(struct unshard_engine *engine, uint32_t number)
{
    if (engine->files[number].pass != NULL)
        pass_give_up(engine, &engine->files[number]);
}

void pass_cancel(struct unshard_engine *engine, struct fetch *fetch)
{
    uint32_t number = fetch->file;
    pass_drop(engine, fetch);
    pass_give_up(engine, &engine->files[number]);
}

void pass_abandon(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    file->pass->in_flight--;
    pass_give_up(engine, file);
}

/* All chunks are hashed. No lock held; nobody else ends the pass. */
static void pass_finish(struct unshard_engine *engine, uint32_t number)
{
    struct digest actual;
    struct check_pass *pass = engine->files[number].pass;
    hasher_finish(pass->hasher, &actual);
    if (digest_equal(&actual, &pass->epoch->whole->digest))
        verdict_good(engine, pass->epoch);
    else
        verdict_bad(engine, pass->epoch, &actual);
    pthread_mutex_lock(&engine->lock);
    pass_free(engine, &engine->files[number]);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- hashing -----------------------------------------------------------------------------------
 */

/* Hashes what is there in order. Caller holds engine->lock, which is released meanwhile. True when
 * the last chunk has been hashed. */
static bool hash_arrived(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    struct check_pass *pass = file->pass;
    struct fetch *fetch;
    pass->hashing = true;
    while (!pass->failed && (fetch = pass->arrived[pass->next_hash % PASS_SLOTS]) != NULL) {
        pass->arrived[pass->next_hash % PASS_SLOTS] = NULL;
        pthread_mutex_unlock(&engine->lock);
        if (!fetch->hashed)
            hasher_update(pass->hasher, fetch->buffer, fetch->length);
        pthread_mutex_lock(&engine->lock);
        pass->next_hash++;
        pass_drop(engine, fetch);
        if (!pass->in_memory) /* there is room for another read */
            readers_wake(engine);
    }
    bool complete = !pass->failed && pass->next_hash == file->chunk_count;
    pass->hashing = complete; /* nobody else ends it then */
    if (pass->failed)
        pass_settle(engine, file);
    return complete;
}

void pass_arrived(struct unshard_engine *engine, struct fetch *fetch)
{
    uint32_t number = fetch->file;
    bool complete = false;
    pthread_mutex_lock(&engine->lock);
    struct file_state *file = &engine->files[number];
    struct check_pass *pass = file->pass;
    if (pass->failed) {
        pass_drop(engine, fetch);
        pass_give_up(engine, file);
    } else {
        pass->arrived[fetch->index % PASS_SLOTS] = fetch;
        complete = !pass->hashing && hash_arrived(engine, number);
    }
    pthread_mutex_unlock(&engine->lock);
    if (complete)
        pass_finish(engine, number);
}

/* ---- what nobody comes for ---------------------------------------------------------------------
 *
 * The kernel can take page cache back, and not this memory. What is given back is read from storage
 * when it is wanted, and compared with what the file's pass has seen there.
 */

#define IDLE_NS UINT64_C(60000000000)

void pass_unstage(struct unshard_engine *engine, uint64_t now)
{
    struct staging *staging = &engine->staging;
    uint64_t last = engine->traffic.asked_ns > engine->traffic.given_ns ? engine->traffic.asked_ns
                                                                        : engine->traffic.given_ns;
    bool idle = now > last && now - last > IDLE_NS;
    /* What is staged makes the budget smaller: not by that much. */
    for (uint32_t i = 0; i < staging->file_count && staging->bytes > 0 &&
                         (idle || staging->bytes / 2 > staging->budget);
         i++)
        if (engine->files[i].pass == NULL)
            staging_forget(staging, i);
}

/* ---- detached reads ----------------------------------------------------------------------------
 */

/* Reads for the file fail: those who wait for it are told. */
static void fail_held(struct unshard_engine *engine, struct fetch *fetch,
                      const struct unshard_error *error)
{
    struct file_state *file = &engine->files[fetch->file];
    struct file_epoch *epoch = epoch_hold(fetch->epoch);
    uint32_t number = fetch->file;
    struct waiter *waiters = NULL;
    pthread_mutex_lock(&engine->lock);
    bool current = epoch_is_current(engine, epoch);
    if (current) {
        file_note_error(file, error);
        file_cancel_held(engine, number, &waiters);
        file->pass_demanded = false;
        chunk_of(engine, fetch)->attempts = 0; /* the next pass tries as often */
    }
    pass_drop(engine, fetch);
    pass_give_up(engine, file);
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(waiters, NULL, EIO);
    if (strcmp(error->code, HEADER_MISMATCH) == 0)
        file_block(engine, epoch, GATE_HEADER, error, NULL);
    else if (current)
        log_failure(engine, number, error, false);
    epoch_release(epoch);
}

static void retry_or_fail(struct unshard_engine *engine, struct fetch *fetch,
                          const struct unshard_error *error)
{
    uint32_t number = fetch->file;
    pthread_mutex_lock(&engine->lock);
    bool again = !engine->files[number].pass->failed && fetch_retry(engine, fetch, error);
    pthread_mutex_unlock(&engine->lock);
    if (again)
        log_failure(engine, number, error, true);
    else
        fail_held(engine, fetch, error);
}

static int read_whole(struct unshard_engine *engine, struct fetch *fetch, bool *cached,
                      struct unshard_error *error)
{
    uint64_t offset = (uint64_t)fetch->index * engine->chunk_bytes;
    /* What is gathered from is read again soon, by whoever gathers it. */
    int result = chunk_is_unshown(&engine->files[fetch->file], fetch->index)
                     ? source_read_cached(engine->source, fetch->file, offset, fetch->buffer,
                                          fetch->length, error)
                     : source_read(engine->source, fetch->file, offset, fetch->buffer,
                                   fetch->length, cached, error);
    return result == 0 ? check_chunk(engine, fetch, error) : result;
}

/* Takes the hasher for a chunk that comes out of memory, when it is its turn: it is hashed while it
 * is read. */
static bool take_hasher(struct unshard_engine *engine, const struct fetch *fetch)
{
    const struct file_state *file = &engine->files[fetch->file];
    struct check_pass *pass = file->pass;
    pthread_mutex_lock(&engine->lock);
    bool take = pass->in_memory && !pass->hashing && !pass->failed &&
                pass->next_hash == fetch->index && !chunk_is_unshown(file, fetch->index);
    pass->hashing = pass->hashing || take;
    pthread_mutex_unlock(&engine->lock);
    return take;
}

void pass_read(struct unshard_engine *engine, struct fetch *fetch)
{
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    struct file_state *file = &engine->files[fetch->file];
    bool cached = false, streams = !fetch->staged && take_hasher(engine, fetch);
    int result = fetch->staged ? 0
                 : streams     ? pass_stream(engine, fetch, &file->pass->hasher, &cached, &error)
                               : read_whole(engine, fetch, &cached, &error);
    pthread_mutex_lock(&engine->lock);
    end_reading(engine, fetch);
    file->pass->hashing = file->pass->hashing && !streams;
    bool current = epoch_is_current(engine, fetch->epoch);
    engine->passes.in_memory += cached - file->pass->in_memory;
    file->pass->in_memory = fetch->from_memory = cached;
    if (result == 0 && current && !fetch->staged)
        result = check_observed(engine, fetch, &error);
    if (result == 0 && current)
        note_success(engine, fetch, fetch->staged);
    fetch->stages =
        result == 0 && current && !cached && !streams && !chunk_is_unshown(file, fetch->index);
    pthread_mutex_unlock(&engine->lock);
    if (result != 0)
        retry_or_fail(engine, fetch, &error);
    else
        pass_arrived(engine, fetch);
}

void pass_discard(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (file->pass == NULL)
        return;
    for (unsigned i = 0; i < PASS_SLOTS; i++)
        if (file->pass->arrived[i] != NULL)
            pass_drop(engine, file->pass->arrived[i]);
    pass_free(engine, file);
}
