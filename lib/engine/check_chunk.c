/* SPDX-License-Identifier: MIT
 *
 * One chunk against the digest it must match. Chunk digests come from a manifest, or are a
 * by-product of a pass in which the whole file matched its digest. Without any, a chunk must read
 * as it did the first time. Those that will stand for a verified chunk are keyed, so that nobody
 * can make other bytes that have them, and are not told: who knew them could.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What is said of a chunk that is another one than it was when the whole file was verified. */
static int fail_kept(struct unshard_engine *engine, uint32_t file, uint64_t offset,
                     const char *origin, struct unshard_error *error)
{
    return error_set_at(
        error, "mismatch", EIO, offset,
        "%s: the chunk at %llu does not match: it is not what it was when the whole "
        "file matched its digest (%s)",
        engine->checkpoint->files[file].path, (unsigned long long)offset, origin);
}

static int fail_trusted(struct unshard_engine *engine, uint32_t file,
                        const struct expected_chunks *trusted, uint64_t offset,
                        const struct digest *actual, struct unshard_error *error)
{
    char expected_hex[DIGEST_MAX_HEX], actual_hex[DIGEST_MAX_HEX];
    struct digest expected = expected_chunk(trusted, offset / trusted->chunk_bytes);
    if (trusted->algorithm == DIGEST_KEYED)
        return fail_kept(engine, file, offset, trusted->origin, error);
    return error_set_at(error, "mismatch", EIO, offset,
                        "%s: the chunk at %llu does not match: %s is %s, expected %s (%s)",
                        engine->checkpoint->files[file].path, (unsigned long long)offset,
                        digest_algorithm_name(trusted->algorithm),
                        digest_to_hex(actual, actual_hex), digest_to_hex(&expected, expected_hex),
                        trusted->origin);
}

static bool matches(struct unshard_engine *engine, const struct expected_chunks *trusted,
                    uint64_t offset, const char *bytes, uint64_t length, struct digest *actual)
{
    *actual = digest_of(trusted->algorithm, &engine->trust.secret, bytes, (size_t)length);
    return expected_chunks_match(trusted, offset / trusted->chunk_bytes, actual);
}

int check_bytes(struct unshard_engine *engine, uint32_t file, const struct file_check *check,
                uint64_t offset, const char *bytes, uint64_t length, struct unshard_error *error)
{
    struct digest actual;
    if (matches(engine, &check->chunks, offset, bytes, length, &actual))
        return 0;
    pthread_mutex_lock(&engine->lock);
    note_chunk_mismatch(&engine->files[file], check, &actual, offset);
    pthread_mutex_unlock(&engine->lock);
    return fail_trusted(engine, file, &check->chunks, offset, &actual, error);
}

/* Trusted digests may be of smaller pieces than a chunk, never of larger ones. */
static int check_trusted(struct unshard_engine *engine, struct fetch *fetch,
                         struct unshard_error *error)
{
    const struct expected_chunks *trusted = &fetch->check->chunks;
    uint64_t start = (uint64_t)fetch->index * engine->chunk_bytes;
    for (uint64_t done = 0, length; done < fetch->length; done += length) {
        length = fetch->length - done;
        if (length > trusted->chunk_bytes)
            length = trusted->chunk_bytes;
        if (!matches(engine, trusted, start + done, fetch->buffer + done, length, &fetch->digest))
            return fail_trusted(engine, fetch->file, trusted, start + done, &fetch->digest, error);
    }
    return 0;
}

void note_chunk_mismatch(struct file_state *file, const struct file_check *check,
                         const struct digest *actual, uint64_t offset)
{
    const struct expected_chunks *trusted = &check->chunks;
    if (check->kind != CHECK_CHUNKS || trusted->chunk_bytes == 0 ||
        trusted->algorithm == DIGEST_KEYED || offset / trusted->chunk_bytes >= trusted->count)
        return;
    struct digest expected = expected_chunk(trusted, offset / trusted->chunk_bytes);
    struct file_trouble *trouble = file_trouble(file);
    if (trouble == NULL)
        return;
    struct mismatch *mismatch = &trouble->mismatch;
    *mismatch = (struct mismatch){.known = true, .origin = trusted->origin};
    snprintf(mismatch->algorithm, sizeof mismatch->algorithm, "%s",
             digest_algorithm_name(trusted->algorithm));
    digest_to_hex(&expected, mismatch->expected);
    digest_to_hex(actual, mismatch->actual);
}

/* The views were planned from a header, which must have been the one that is there. A file that
 * has been replaced since has been compared with it by file_watch.c. */
int check_header(struct unshard_engine *engine, uint32_t number, uint64_t start, const char *bytes,
                 uint64_t length, struct unshard_error *error)
{
    const struct source_file *file = &engine->checkpoint->files[number];
    uint64_t offset;
    if (header_pieces_match(file->header_pieces, file->header_piece_count, start, bytes, length,
                            &offset))
        return 0;
    return error_set_at(error, HEADER_MISMATCH, EIO, offset,
                        "%s: bytes of the header, at %llu, are not what they were when its "
                        "directory was looked at: it was written to; open it again",
                        file->path, (unsigned long long)offset);
}

/* What a chunk was is remembered. Where the whole file has a digest that will stand for a verified
 * chunk; elsewhere it tells accidents alone, and the fastest is good enough. */
static int observe(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error)
{
    bool off = engine->options.verify == UNSHARD_VERIFY_OFF;
    enum digest_algorithm algorithm =
        fetch->check->kind == CHECK_WHOLE && !off ? DIGEST_KEYED : DIGEST_XXH3_128;
    fetch->digest = digest_of(algorithm, &engine->trust.secret, fetch->buffer, fetch->length);
    return fetch->digest.algorithm == DIGEST_NONE ? error_no_memory(error) : 0;
}

int check_chunk(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error)
{
    bool off = engine->options.verify == UNSHARD_VERIFY_OFF;
    int result = fetch->check->kind == CHECK_CHUNKS && !off ? check_trusted(engine, fetch, error)
                                                            : observe(engine, fetch, error);
    if (off)
        return result; /* nothing is checked by it but what is taken from the page cache */
    if (result == 0 && epoch_is_first(fetch->epoch))
        result = check_header(engine, fetch->file, (uint64_t)fetch->index * engine->chunk_bytes,
                              fetch->buffer, fetch->length, error);
    if (result == 0 && epoch_is_first(fetch->epoch) && fetch->check->kind == CHECK_CHUNKS)
        result = unread_check(engine, fetch->file, fetch->check, error);
    return result;
}

int check_observed(struct unshard_engine *engine, const struct fetch *fetch,
                   struct unshard_error *error)
{
    struct file_state *file = &engine->files[fetch->file];
    struct chunk *chunk = &file->chunks[fetch->index];
    bool chunks = fetch->check->kind == CHECK_CHUNKS;
    if (chunks && !chunk->checked) {
        chunk->checked = true;
        outliving_mark(file, fetch->index);
        file->chunks_checked += !chunk_is_unshown(file, fetch->index);
    }
    struct chunk_tag *seen = &file->digests[fetch->index];
    if (engine->options.verify == UNSHARD_VERIFY_OFF)
        memcpy(seen->bytes, fetch->digest.bytes, sizeof seen->bytes);
    if (chunks || engine->options.verify == UNSHARD_VERIFY_OFF)
        return 0;
    uint64_t offset = (uint64_t)fetch->index * engine->chunk_bytes;
    if (!chunk->seen)
        memcpy(seen->bytes, fetch->digest.bytes, sizeof seen->bytes);
    if (memcmp(seen->bytes, fetch->digest.bytes, sizeof seen->bytes) == 0)
        return 0;
    return error_set_at(error, "changed", EIO, offset,
                        "%s: the chunk at %llu is not what it was when it was read before",
                        engine->checkpoint->files[fetch->file].path, (unsigned long long)offset);
}
