/* SPDX-License-Identifier: MIT */
#include "verify/file_hasher.h"

#include "digest/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int begin_chunks(struct file_hasher *hasher, uint64_t size)
{
    struct hash_request *request = hasher->request;
    uint32_t count;
    if (!manifest_chunk_count(size, request->chunk_bytes, &count))
        return -ENOMEM;
    request->chunks = calloc((size_t)count + 1, digest_size(request->chunk_algorithm));
    hasher->chunk_left = request->chunk_bytes;
    return request->chunks == NULL ? -ENOMEM : 0;
}

int file_hasher_begin(struct file_hasher *hasher, struct hash_request *request, uint64_t size)
{
    *hasher = (struct file_hasher){.request = request};
    for (enum digest_algorithm a = DIGEST_NONE + 1; a < DIGEST_ALGORITHM_COUNT; a++) {
        if ((request->algorithms & 1U << a) == 0)
            continue;
        hasher->hashers[a] = hasher_new(a, size);
        if (hasher->hashers[a] == NULL)
            return -ENOMEM;
    }
    return request->chunk_bytes != 0 ? begin_chunks(hasher, size) : 0;
}

static void end_chunk(struct file_hasher *hasher)
{
    struct hash_request *request = hasher->request;
    size_t size = digest_size(request->chunk_algorithm);
    struct digest digest;
    hasher_finish(hasher->chunk, &digest);
    hasher_free(hasher->chunk);
    hasher->chunk = NULL;
    hasher->chunk_left = request->chunk_bytes;
    hasher->failed = hasher->failed || digest.algorithm == DIGEST_NONE;
    memcpy(request->chunks + request->chunk_count++ * size, digest.bytes, size);
}

static bool begin_chunk(struct file_hasher *hasher)
{
    const struct hash_request *request = hasher->request;
    if (hasher->chunk == NULL)
        hasher->chunk = request->chunk_algorithm == DIGEST_KEYED
                            ? hasher_new_keyed(request->secret)
                            : hasher_new(request->chunk_algorithm, request->chunk_bytes);
    hasher->failed = hasher->failed || hasher->chunk == NULL;
    return hasher->chunk != NULL;
}

static void update_chunks(struct file_hasher *hasher, const unsigned char *data, size_t length)
{
    while (length > 0 && begin_chunk(hasher)) {
        size_t part = length < hasher->chunk_left ? length : (size_t)hasher->chunk_left;
        hasher_update(hasher->chunk, data, part);
        hasher->chunk_left -= part;
        data += part;
        length -= part;
        if (hasher->chunk_left == 0)
            end_chunk(hasher);
    }
}

void file_hasher_update(struct file_hasher *hasher, const unsigned char *data, size_t length)
{
    for (unsigned a = 0; a < DIGEST_ALGORITHM_COUNT; a++)
        if (hasher->hashers[a] != NULL)
            hasher_update(hasher->hashers[a], data, length);
    if (hasher->request->chunks != NULL)
        update_chunks(hasher, data, length);
}

int file_hasher_finish(struct file_hasher *hasher)
{
    for (unsigned a = 0; a < DIGEST_ALGORITHM_COUNT; a++)
        if (hasher->hashers[a] != NULL)
            hasher_finish(hasher->hashers[a], &hasher->request->digests[a]);
    if (hasher->chunk != NULL)
        end_chunk(hasher);
    return hasher->failed ? -ENOMEM : 0;
}

void file_hasher_free(struct file_hasher *hasher)
{
    for (unsigned a = 0; a < DIGEST_ALGORITHM_COUNT; a++)
        hasher_free(hasher->hashers[a]);
    hasher_free(hasher->chunk);
}
