/* SPDX-License-Identifier: MIT
 *
 * One chunk against the digest it must match. Chunk digests are XXH3-128: they come from a
 * manifest, or are a by-product of a pass in which the whole file matched its digest. Without any,
 * a chunk must read as it did the first time.
 */
#include "prefetch/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void to_hex(XXH128_hash_t hash, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

static int fail(struct unshard_engine *engine, const struct fetch *fetch, const char *code,
                uint64_t offset, XXH128_hash_t expected, XXH128_hash_t actual, const char *why,
                struct unshard_error *error)
{
    char expected_hex[33], actual_hex[33];
    to_hex(expected, expected_hex);
    to_hex(actual, actual_hex);
    *error = (struct unshard_error){.code = code, .errno_value = EIO, .offset = offset};
    snprintf(error->message, sizeof error->message,
             "%s: the chunk at %llu does not match: xxh3-128 is %s, expected %s (%s)",
             engine->checkpoint->files[fetch->file].path, (unsigned long long)offset, actual_hex,
             expected_hex, why);
    return -EIO;
}

int check_bytes(struct unshard_engine *engine, uint32_t file, const struct expected_chunks *trusted,
                uint64_t offset, const char *bytes, uint64_t length, struct unshard_error *error)
{
    struct fetch fetch = {.file = file}; /* for the message */
    uint64_t index = offset / trusted->chunk_bytes;
    XXH128_hash_t actual = XXH3_128bits(bytes, (size_t)length);
    if (index < trusted->count && XXH128_isEqual(actual, trusted->digests[index]))
        return 0;
    fetch.check = CHECK_CHUNKS;
    fetch.trusted = *trusted;
    fetch.digest = actual;
    pthread_mutex_lock(&engine->lock);
    note_chunk_mismatch(&engine->files[file], &fetch, offset);
    pthread_mutex_unlock(&engine->lock);
    return fail(engine, &fetch, "mismatch", offset,
                index < trusted->count ? trusted->digests[index] : (XXH128_hash_t){0, 0}, actual,
                trusted->origin, error);
}

/* Trusted digests may be of smaller pieces than a chunk, never of larger ones. */
static int check_trusted(struct unshard_engine *engine, struct fetch *fetch,
                         struct unshard_error *error)
{
    const struct expected_chunks *trusted = &fetch->trusted;
    uint64_t start = (uint64_t)fetch->index * engine->chunk_bytes;
    for (uint64_t done = 0; done < fetch->length;) {
        uint64_t index = (start + done) / trusted->chunk_bytes;
        uint64_t length = fetch->length - done;
        if (length > trusted->chunk_bytes)
            length = trusted->chunk_bytes;
        XXH128_hash_t actual = XXH3_128bits(fetch->buffer + done, (size_t)length);
        fetch->digest = actual;
        if (index >= trusted->count || !XXH128_isEqual(actual, trusted->digests[index]))
            return fail(engine, fetch, "mismatch", start + done,
                        index < trusted->count ? trusted->digests[index] : (XXH128_hash_t){0, 0},
                        actual, trusted->origin, error);
        done += length;
    }
    return 0;
}

void note_chunk_mismatch(struct file_state *file, const struct fetch *fetch, uint64_t offset)
{
    const struct expected_chunks *trusted = &fetch->trusted;
    if (fetch->check != CHECK_CHUNKS || trusted->chunk_bytes == 0 ||
        offset / trusted->chunk_bytes >= trusted->count)
        return;
    file->mismatch = (struct mismatch){.known = true, .origin = trusted->origin};
    snprintf(file->mismatch.algorithm, sizeof file->mismatch.algorithm, "%s",
             digest_algorithm_name(DIGEST_XXH3_128));
    to_hex(trusted->digests[offset / trusted->chunk_bytes], file->mismatch.expected);
    to_hex(fetch->digest, file->mismatch.actual);
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
                        "%s: bytes of the header, at %llu, are not what they were when it was "
                        "mounted: mount the checkpoint anew",
                        file->path, (unsigned long long)offset);
}

int check_chunk(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error)
{
    int result = 0;
    if (engine->options.verify == UNSHARD_VERIFY_OFF)
        return 0;
    if (fetch->check == CHECK_CHUNKS)
        result = check_trusted(engine, fetch, error);
    else
        fetch->digest = XXH3_128bits(fetch->buffer, fetch->length);
    if (result == 0 && fetch->generation == 0)
        result = check_header(engine, fetch->file, (uint64_t)fetch->index * engine->chunk_bytes,
                              fetch->buffer, fetch->length, error);
    if (result == 0 && fetch->generation == 0 && fetch->check == CHECK_CHUNKS)
        result = unread_check(engine, fetch->file, &fetch->trusted, error);
    return result;
}

int check_observed(struct unshard_engine *engine, const struct fetch *fetch,
                   struct unshard_error *error)
{
    struct file_state *file = &engine->files[fetch->file];
    struct chunk *chunk = &file->chunks[fetch->index];
    if (fetch->check == CHECK_CHUNKS && !chunk->checked) {
        chunk->checked = true;
        file->chunks_checked += !chunk_is_unshown(file, fetch->index);
    }
    if (fetch->check == CHECK_CHUNKS || engine->options.verify == UNSHARD_VERIFY_OFF)
        return 0;
    if (!chunk->seen)
        file->digests[fetch->index] = fetch->digest;
    if (XXH128_isEqual(file->digests[fetch->index], fetch->digest))
        return 0;
    return fail(engine, fetch, "changed", (uint64_t)fetch->index * engine->chunk_bytes,
                file->digests[fetch->index], fetch->digest, "as it was read before", error);
}
