/* SPDX-License-Identifier: MIT
 *
 * What follows when a file has been hashed to its end. It has matched: the digests of its chunks,
 * taken on the way, are trusted from then on, also under its other names, and are kept for the next
 * mount. It has not: it is blocked, by all its names.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>

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
    outliving_good(file);
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

void verdict_good(struct unshard_engine *engine, struct file_epoch *epoch)
{
    uint32_t number = epoch->file;
    struct gained *gained = NULL;
    pthread_mutex_lock(&engine->lock);
    if (epoch_is_current(engine, epoch))
        gained = gained_from(engine, &engine->files[number], epoch);
    if (gained != NULL) {
        open_file(engine, number, gained);
        if (engine->trust.cache != NULL)
            number_set_add(&engine->trust.to_keep, number);
        open_same_files(engine, number);
    }
    pthread_mutex_unlock(&engine->lock);
    if (gained != NULL) {
        log_verified(engine, epoch);
        log_recovery(engine, number);
    }
}

/* The next one whose digests are to be written to the cache; NULL: none. The caller's. */
static struct file_epoch *next_to_keep(struct unshard_engine *engine)
{
    struct number_set *to_keep = &engine->trust.to_keep;
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
        if (digest_cache_store(engine->trust.cache, &key, chunks->chunk_bytes, chunks->digests,
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

void verdict_bad(struct unshard_engine *engine, struct file_epoch *epoch,
                 const struct digest *actual)
{
    uint32_t number = epoch->file, at = number;
    pthread_mutex_lock(&engine->lock);
    /* It may be blocked for what explains this one too, such as a change on disk. */
    bool current = epoch_is_current(engine, epoch);
    pthread_mutex_unlock(&engine->lock);
    if (current)
        block_mismatched(engine, epoch, actual);
    for (struct file_epoch *name; current && (name = next_waiting(engine, number, at)) != NULL;) {
        at = name->file;
        block_mismatched(engine, name, actual);
        epoch_release(name);
    }
}
