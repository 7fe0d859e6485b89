/* SPDX-License-Identifier: MIT
 *
 * Passes over files of which only a digest of the whole is known.
 *
 * A pass reads its file's chunks in order, several at once, and feeds them to one hasher, in order:
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
#define MOST_UNASKED (UINT64_C(64) << 20)
#define PASS_RETRY_NS UINT64_C(1000000000)
/* So many whose turn it is are tried to be begun, before the next search. */
#define MOST_TRIES 64U

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
    engine->passes_running--;
    engine->passes_in_memory -= pass->in_memory;
    hasher_free(pass->hasher);
    number_set_remove(&engine->passes, pass->epoch->file);
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

static bool pass_begin(struct unshard_engine *engine, uint32_t number, bool demanded)
{
    struct file_state *file = &engine->files[number];
    uint64_t reserve;
    if (engine_now_ns() < file->pass_retry_ns ||
        (!demanded && engine->passes_running >= engine->most_passes) ||
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
    engine->passes_running++;
    number_set_add(&engine->passes, number);
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
    size_t share = buffers_for_stores(&engine->buffers) / 2 / (engine->passes_running + 1U);
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

/* The next chunk of the pass as a fetch that has been started; NULL: it is far enough ahead. */
static struct fetch *pass_read_next(struct unshard_engine *engine, uint32_t number)
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

static bool window_is_full(const struct unshard_engine *engine)
{
    return engine->options.verify == UNSHARD_VERIFY_ASYNC &&
           engine->unconsumed_bytes >= engine->window_bytes / 2;
}

/* Another name of the file that a pass is made over; `number` when there is none. Who waits for the
 * one waits for the other. */
static uint32_t find_running(struct unshard_engine *engine, uint32_t number)
{
    uint32_t at = number;
    if (engine->files[number].pass != NULL || !gate_is_closed(&engine->files[number].gate))
        return number;
    while ((at = same_file_next(engine, number, at)) != number)
        if (engine->files[at].pass != NULL && engine->files[at].stalled <= 1)
            break;
    if (at != number && engine->files[number].pass_demanded)
        pass_demand(engine, at);
    return at;
}

/* What nobody prefetches is verified beforehand only when it is small: the data sets and unused
 * revisions of a hub's cache are not to be read because they could be. */
static bool may_pass(const struct unshard_engine *engine, uint32_t place)
{
    const struct file_state *file = &engine->files[engine->pass_files[place]];
    return place < engine->planned_passes || file->size <= MOST_UNASKED;
}

void pass_demand(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (file->epoch->check->kind != CHECK_WHOLE)
        return;
    file->pass_demanded = true;
    number_set_add(&engine->passes_demanded, number);
}

void pass_may_be_due(struct unshard_engine *engine, uint32_t number)
{
    uint32_t place = engine->pass_places[number];
    if (place != UINT32_MAX)
        engine->pass_due[place / 64] |= UINT64_C(1) << place % 64;
}

/* The first place from `place` on that may be due, or pass_count. */
static uint32_t next_due(const struct unshard_engine *engine, uint32_t place)
{
    while (place < engine->pass_count) {
        uint64_t rest = engine->pass_due[place / 64] >> place % 64;
        if (rest != 0)
            return place + (uint32_t)__builtin_ctzll(rest);
        place = (place / 64 + 1) * 64;
    }
    return engine->pass_count;
}

static bool is_wanted_from(const struct unshard_engine *engine, uint32_t number, bool demanded)
{
    const struct file_state *file = &engine->files[number];
    return file->epoch->check->kind == CHECK_WHOLE && !gate_is_blocked(&file->gate) &&
           file->pass_demanded == demanded && file->stalled <= 1;
}

/* The next chunk of the pass over the file, which is begun if it can be. */
static struct fetch *next_of_file(struct unshard_engine *engine, uint32_t number, bool demanded)
{
    uint32_t running = find_running(engine, number);
    if (engine->files[running].pass == NULL && !pass_begin(engine, running, demanded))
        return NULL;
    return pass_read_next(engine, running);
}

/* Of a few files, in the order of the plan. */
static struct fetch *next_of_set(struct unshard_engine *engine, const struct number_set *set,
                                 bool demanded)
{
    for (uint32_t place = 0, next;; place = next + 1) {
        next = UINT32_MAX;
        for (uint32_t i = 0; i < set->count; i++) {
            uint32_t other = engine->pass_places[set->numbers[i]];
            if (other >= place && other < next)
                next = other;
        }
        if (next == UINT32_MAX)
            return NULL;
        uint32_t number = engine->pass_files[next];
        struct fetch *fetch = is_wanted_from(engine, number, demanded)
                                  ? next_of_file(engine, number, demanded)
                                  : NULL;
        if (fetch != NULL)
            return fetch;
    }
}

static void forget_demands(struct unshard_engine *engine)
{
    struct number_set *demanded = &engine->passes_demanded;
    for (uint32_t i = demanded->count; i-- > 0;)
        if (!engine->files[demanded->numbers[i]].pass_demanded)
            number_set_remove(demanded, demanded->numbers[i]);
}

/* No pass will be begun there unasked, until the file begins anew. */
static bool is_done(const struct unshard_engine *engine, uint32_t place)
{
    const struct file_state *file = &engine->files[engine->pass_files[place]];
    return file->epoch->check->kind != CHECK_WHOLE || gate_is_blocked(&file->gate) ||
           !may_pass(engine, place);
}

/* The first of those whose turn it is that can be begun now. */
static struct fetch *begin_next(struct unshard_engine *engine)
{
    unsigned tries = MOST_TRIES;
    for (uint32_t place = 0; tries > 0 && engine->passes_running < engine->most_passes; place++) {
        place = next_due(engine, place);
        if (place == engine->pass_count)
            return NULL;
        uint32_t number = engine->pass_files[place];
        if (is_done(engine, place)) {
            engine->pass_due[place / 64] &= ~(UINT64_C(1) << place % 64);
            continue;
        }
        if (engine->files[number].pass != NULL || !is_wanted_from(engine, number, false))
            continue;
        struct fetch *fetch = next_of_file(engine, number, false);
        if (fetch != NULL)
            return fetch;
        tries--;
    }
    return NULL;
}

struct fetch *pass_next_demanded(struct unshard_engine *engine)
{
    forget_demands(engine);
    return next_of_set(engine, &engine->passes_demanded, true);
}

struct fetch *pass_next(struct unshard_engine *engine)
{
    bool unasked = engine->options.prefetch == UNSHARD_PREFETCH_ALL && !engine->no_stores;
    struct fetch *fetch = pass_next_demanded(engine);
    if (fetch != NULL || !unasked || window_is_full(engine))
        return fetch;
    fetch = next_of_set(engine, &engine->passes, false);
    return fetch != NULL ? fetch : begin_next(engine);
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

struct digest_cache_key pass_cache_key(const struct file_epoch *epoch)
{
    return (struct digest_cache_key){.device = epoch->identity.device,
                                     .inode = epoch->identity.inode,
                                     .size = epoch->identity.size,
                                     .mtime_ns = epoch->identity.mtime_ns,
                                     .ctime_ns = epoch->identity.ctime_ns,
                                     .whole = epoch->whole->digest};
}

/* The file has matched: its chunk digests are trusted, and what waited for it goes on. Takes over
 * `gained`. Caller holds engine->lock. */
static void open_file(struct unshard_engine *engine, uint32_t number, struct gained *gained)
{
    struct file_state *file = &engine->files[number];
    epoch_gain(file->epoch, gained);
    file->pass_demanded = false;
    if (file->chunks_failed == 0 && file->retrying == 0)
        file->failing = false;
    if (gate_is_closed(&file->gate)) {
        file_open(engine, number);
        readers_wake(engine);
    }
}

/* The digests that the chunks of `from` had, as those of a name of the same file. */
static struct gained *gained_from(const struct unshard_engine *engine,
                                  const struct file_state *from, const struct file_epoch *epoch)
{
    return gained_new(engine->chunk_bytes, from->chunk_count, from->digests, epoch->whole->origin,
                      true);
}

/* What has matched has matched by all its names, of those that served nothing before. Caller holds
 * engine->lock. */
static void open_same_files(struct unshard_engine *engine, uint32_t number)
{
    for (uint32_t at = number; (at = same_file_next(engine, number, at)) != number;) {
        const struct file_state *file = &engine->files[at];
        struct gained *gained = NULL;
        if (file->epoch->check->kind == CHECK_WHOLE && gate_is_closed(&file->gate) &&
            file->pass == NULL)
            gained = gained_from(engine, &engine->files[number], file->epoch);
        if (gained != NULL)
            open_file(engine, at, gained);
    }
}

static void log_verified(struct unshard_engine *engine, const struct file_epoch *epoch)
{
    const struct expected_digest *whole = epoch->whole;
    char path[512];
    engine_log(engine, 5, "event=shard-verified shard=\"%s\" algorithm=%s origin=\"%s\"",
               error_field(path, sizeof path, engine->checkpoint->files[epoch->file].path),
               digest_algorithm_name(whole->digest.algorithm), whole->origin);
}

static void pass_succeeded(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    struct file_epoch *epoch = epoch_hold(file->pass->epoch);
    struct gained *gained =
        epoch_is_current(engine, epoch) ? gained_from(engine, file, epoch) : NULL;
    if (gained != NULL) {
        open_file(engine, number, gained);
        if (engine->cache != NULL)
            number_set_add(&engine->to_keep, number);
        open_same_files(engine, number);
    }
    pass_free(engine, file);
    pthread_mutex_unlock(&engine->lock);
    if (gained != NULL) {
        log_verified(engine, epoch);
        log_recovery(engine, number);
    }
    epoch_release(epoch);
}

/* The next one whose digests are to be written to the cache; NULL: none. The caller's. */
static struct file_epoch *next_to_keep(struct unshard_engine *engine)
{
    struct number_set *to_keep = &engine->to_keep;
    struct file_epoch *epoch = NULL;
    pthread_mutex_lock(&engine->lock);
    while (to_keep->count > 0 && epoch == NULL) {
        uint32_t number = to_keep->numbers[to_keep->count - 1];
        number_set_remove(to_keep, number);
        if (epoch_is_verified(engine->files[number].epoch)) /* it has not begun anew since */
            epoch = epoch_hold(engine->files[number].epoch);
    }
    pthread_mutex_unlock(&engine->lock);
    return epoch;
}

void keep_gained(struct unshard_engine *engine)
{
    struct unshard_error error;
    for (struct file_epoch *epoch; (epoch = next_to_keep(engine)) != NULL;) {
        const struct expected_chunks *chunks = &epoch->gained->check.chunks;
        struct digest_cache_key key = pass_cache_key(epoch);
        if (digest_cache_store(engine->cache, &key, chunks->chunk_bytes, chunks->digests,
                               chunks->count, &error) != 0)
            engine_log(engine, 5, "event=digests-not-kept message=\"%s\"", error.message);
        epoch_release(epoch);
    }
}

static void block_mismatched(struct unshard_engine *engine, const struct file_epoch *epoch,
                             const struct digest *actual)
{
    const struct expected_digest *whole = epoch->whole;
    struct mismatch mismatch = {.known = true, .origin = whole->origin};
    struct unshard_error error;
    snprintf(mismatch.algorithm, sizeof mismatch.algorithm, "%s",
             digest_algorithm_name(actual->algorithm));
    digest_to_hex(&whole->digest, mismatch.expected);
    digest_to_hex(actual, mismatch.actual);
    error_set(&error, "mismatch", EIO, "%s: does not match: %s is %s, expected %s (%s)",
              engine->checkpoint->files[epoch->file].path, mismatch.algorithm, mismatch.actual,
              mismatch.expected, whole->origin);
    file_block(engine, epoch, GATE_MISMATCH, &error, &mismatch);
}

/* The next name of the file, after `at`, that waits for what has not matched; NULL: none. The
 * caller's. */
static struct file_epoch *next_waiting(struct unshard_engine *engine, uint32_t number, uint32_t at)
{
    struct file_epoch *found = NULL;
    pthread_mutex_lock(&engine->lock);
    while (found == NULL && (at = same_file_next(engine, number, at)) != number) {
        struct file_state *file = &engine->files[at];
        if (file->epoch->check->kind == CHECK_WHOLE && !gate_is_blocked(&file->gate))
            found = epoch_hold(file->epoch);
    }
    pthread_mutex_unlock(&engine->lock);
    return found;
}

static void pass_mismatched(struct unshard_engine *engine, uint32_t number,
                            const struct digest *actual)
{
    struct file_state *file = &engine->files[number];
    uint32_t at = number;
    pthread_mutex_lock(&engine->lock);
    struct file_epoch *epoch = epoch_hold(file->pass->epoch);
    /* It may be blocked for what explains this one too, such as a change on disk. */
    bool current = epoch_is_current(engine, epoch);
    pass_free(engine, file);
    pthread_mutex_unlock(&engine->lock);
    if (current)
        block_mismatched(engine, epoch, actual);
    for (struct file_epoch *name; current && (name = next_waiting(engine, number, at)) != NULL;) {
        at = name->file;
        block_mismatched(engine, name, actual);
        epoch_release(name);
    }
    epoch_release(epoch);
}

/* All chunks are hashed. No lock held; the pass is this thread's alone now. */
static void pass_finish(struct unshard_engine *engine, uint32_t number)
{
    struct digest actual;
    const struct file_state *file = &engine->files[number];
    hasher_finish(file->pass->hasher, &actual);
    if (digest_equal(&actual, &file->pass->epoch->whole->digest))
        pass_succeeded(engine, number);
    else
        pass_mismatched(engine, number, &actual);
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
    uint64_t last = engine->asked_ns > engine->given_ns ? engine->asked_ns : engine->given_ns;
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
    engine->passes_in_memory += cached - file->pass->in_memory;
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
