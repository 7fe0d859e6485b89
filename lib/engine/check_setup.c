/* SPDX-License-Identifier: MIT
 *
 * What each file is checked by: the chunk digests of a manifest, those that an earlier mount has
 * gained, a digest of the whole, or nothing.
 */
#include "engine/engine_internal.h"

#include "base/error.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_PASSES 8L

/* Digests of chunks are enough by themselves when they are as strong as what is known of the whole,
 * and when nobody else knows the whole: a manifest of version 1 has weak ones, and that of version
 * 2 may be about another content than SHA256SUMS or the hub. Where they are not, the whole is to
 * match first. A chunk is checked in one piece, so one that no buffer has room for does not count.
 */
static bool may_check_chunks(const struct unshard_engine *engine,
                             const struct expectation *expectation)
{
    const struct expected_chunks *chunks = expectation->chunks;
    bool strong = expectation->digest_count > 0 &&
                  digest_is_cryptographic(expectation->digests[0].digest.algorithm);
    return chunks != NULL && chunks->count > 0 && chunks->chunk_bytes <= engine->chunk_bytes &&
           (!strong || (expected_chunks_are_strong(chunks) && !expectation->whole_elsewhere));
}

/* What of it is told beforehand. *whole: what a pass must find, or NULL. */
static struct file_check known_of(const struct unshard_engine *engine, uint32_t number,
                                  const struct expected_digest **whole)
{
    const struct expectation *expectation = engine->checkpoint->files[number].expectation;
    *whole = NULL;
    if (engine->options.verify == UNSHARD_VERIFY_OFF || expectation == NULL)
        return (struct file_check){.kind = CHECK_NONE};
    if (expectation->digest_count > 0)
        *whole = &expectation->digests[0];
    if (may_check_chunks(engine, expectation))
        return (struct file_check){CHECK_CHUNKS, *expectation->chunks};
    bool passes = *whole != NULL && engine->files[number].chunk_count > 0;
    return (struct file_check){.kind = passes ? CHECK_WHOLE : CHECK_NONE};
}

struct file_epoch *file_epoch_make(const struct unshard_engine *engine, uint32_t number)
{
    const struct file_epoch *before = engine->files[number].epoch;
    struct source_identity identity = source_identity(engine->source, number);
    const struct expected_digest *whole;
    struct file_check known = known_of(engine, number, &whole);
    return epoch_new(number, before == NULL ? 0 : before->number + 1, &identity, whole, &known);
}

bool file_must_wait(const struct unshard_engine *engine, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    bool waits = engine->options.verify == UNSHARD_VERIFY_STRICT &&
                 engine->files[number].epoch->check->kind == CHECK_WHOLE;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count && !waits; i++)
        waits = file_must_wait(engine, gathered->sources[i].file);
    return waits;
}

/* No read, and so no pass, ever comes to an empty file. */
static bool is_of_nothing(const struct expected_digest *expected)
{
    struct digest digest = {.algorithm = DIGEST_NONE};
    struct hasher *hasher = hasher_new(expected->digest.algorithm, 0);
    if (hasher == NULL)
        return true; /* memory is short: nothing can be told */
    hasher_finish(hasher, &digest);
    hasher_free(hasher);
    return digest_equal(&digest, &expected->digest);
}

static int check_empty(const struct source_file *source, struct unshard_error *error)
{
    const struct expectation *expectation = source->expectation;
    if (expectation->digest_count == 0 || is_of_nothing(&expectation->digests[0]))
        return 0;
    return error_set(error, "mismatch", EIO, "%s: is empty, and %s says otherwise", source->path,
                     expectation->digests[0].origin);
}

int check_possible(const struct unshard_engine *engine, uint32_t number, uint64_t size,
                   struct unshard_error *error)
{
    const struct source_file *source = &engine->checkpoint->files[number];
    const struct expectation *expectation = source->expectation;
    if (engine->options.verify == UNSHARD_VERIFY_OFF || expectation == NULL)
        return 0;
    if (expectation->contradicts) {
        *error = expectation->error;
        return -EIO;
    }
    if (!expectation->has_size || expectation->size == size)
        return size == 0 ? check_empty(source, error) : 0;
    return error_set(error, "mismatch", EIO, "%s: is %llu bytes long, expected %llu", source->path,
                     (unsigned long long)size, (unsigned long long)expectation->size);
}

/* Digests that an earlier mount has gained. */
static void use_cached_digests(struct unshard_engine *engine, struct file_epoch *epoch)
{
    struct digest_cache_key key = pass_cache_key(epoch);
    struct gained *gained = NULL;
    uint64_t chunk_bytes;
    uint32_t count;
    uint8_t *digests;
    if (digest_cache_load(engine->trust.cache, &key, &chunk_bytes, &digests, &count) != 0)
        return;
    if (chunk_bytes <= engine->chunk_bytes)
        gained = gained_new(chunk_bytes, count, digests, epoch->whole->origin, false);
    if (gained != NULL)
        epoch_gain(epoch, gained);
    free(digests);
}

/* What an earlier process of this mount has found: the whole has matched, and these are its chunks.
 */
static void use_tags(struct unshard_engine *engine, struct file_epoch *epoch)
{
    const struct file_state *file = &engine->files[epoch->file];
    struct gained *gained = gained_new(engine->chunk_bytes, file->chunk_count, file->digests,
                                       epoch->whole->origin, true);
    if (gained != NULL)
        epoch_gain(epoch, gained);
}

int check_make(struct unshard_engine *engine, uint32_t number)
{
    struct unshard_error error;
    uint64_t size = engine->checkpoint->files[number].size;
    struct file_epoch *epoch = file_epoch_make(engine, number);
    if (epoch == NULL)
        return -ENOMEM;
    engine->files[number].epoch = epoch;
    outliving_adopt(engine, number);
    if (epoch->check->kind != CHECK_WHOLE || check_possible(engine, number, size, &error) != 0)
        return 0;
    if (outliving_is_good(engine, number))
        use_tags(engine, epoch);
    else
        use_cached_digests(engine, epoch);
    return 0;
}

int checks_init(struct unshard_engine *engine)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct unshard_error error;
    engine->processors = processors < 1 ? 1 : (unsigned)processors;
    engine->passes.most = (unsigned)(processors < 2             ? 2
                                     : processors < MOST_PASSES ? processors
                                                                : MOST_PASSES);
    if (engine->options.verify != UNSHARD_VERIFY_OFF &&
        digest_cache_open(0, &engine->trust.cache, &error) != 0)
        engine_log(engine, 5, "event=no-digest-cache message=\"%s\"", error.message);
    if (engine->trust.cache != NULL)
        engine->trust.secret = *digest_cache_secret(engine->trust.cache);
    else if (secret_random(&engine->trust.secret) != 0)
        return -EIO;
    uint32_t room = checkpoint_file_room(engine->checkpoint);
    int result = number_set_init(&engine->trust.to_keep, room);
    if (result == 0)
        result = outliving_init(engine);
    if (result == 0)
        result = same_files_init(engine);
    return result == 0 ? passes_init(engine) : result;
}

void checks_free(struct unshard_engine *engine)
{
    number_set_free(&engine->trust.to_keep);
    outliving_free(engine);
    passes_free(engine);
    same_files_free(engine);
    digest_cache_close(engine->trust.cache);
}
