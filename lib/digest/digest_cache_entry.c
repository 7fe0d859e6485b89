/* SPDX-License-Identifier: MIT */
#include "digest/digest_cache_entry.h"

#include "base/checked.h"
#include "digest/manifest.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "unshdig1";
#define VERSION 2U

static void put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof value);
}

static void put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof value);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return le64toh(value);
}

/* Everything of the header but the size and number of chunks. */
static void put_key(uint8_t header[CACHE_ENTRY_HEADER], const struct digest_cache_key *key)
{
    memset(header, 0, CACHE_ENTRY_HEADER);
    memcpy(header, magic, sizeof magic);
    put32(header + 8, VERSION);
    put32(header + 12, (uint32_t)key->whole.algorithm);
    put64(header + 16, key->device);
    put64(header + 24, key->inode);
    put64(header + 32, key->size);
    put64(header + 40, (uint64_t)key->mtime_ns);
    memcpy(header + 64, key->whole.bytes, digest_size(key->whole.algorithm));
    put64(header + 128, (uint64_t)key->ctime_ns);
}

static bool entry_length(uint64_t size, uint64_t chunk_bytes, uint32_t *count, size_t *length)
{
    uint64_t bytes;
    if (chunk_bytes < MANIFEST_LEAST_CHUNK || chunk_bytes > MANIFEST_MOST_CHUNK ||
        (chunk_bytes & (chunk_bytes - 1)) != 0 || !manifest_chunk_count(size, chunk_bytes, count))
        return false;
    if (!checked_mul(*count, CACHE_ENTRY_DIGEST, &bytes) ||
        !checked_add(bytes, CACHE_ENTRY_HEADER + CACHE_ENTRY_DIGEST, &bytes) || bytes > SIZE_MAX)
        return false;
    *length = (size_t)bytes;
    return true;
}

uint8_t *cache_entry_encode(const struct digest_cache_key *key, uint64_t chunk_bytes,
                            const uint8_t *digests, uint32_t count, const struct secret *secret,
                            size_t *length)
{
    uint32_t expected;
    if (!entry_length(key->size, chunk_bytes, &expected, length) || expected != count ||
        digest_size(key->whole.algorithm) == 0)
        return NULL;
    uint8_t *entry = malloc(*length);
    if (entry == NULL)
        return NULL;
    put_key(entry, key);
    put64(entry + 48, chunk_bytes);
    put32(entry + 56, count);
    size_t before = CACHE_ENTRY_HEADER + (size_t)count * CACHE_ENTRY_DIGEST;
    if (count > 0)
        memcpy(entry + CACHE_ENTRY_HEADER, digests, before - CACHE_ENTRY_HEADER);
    struct digest own = digest_of(DIGEST_KEYED, secret, entry, before);
    memcpy(entry + before, own.bytes, CACHE_ENTRY_DIGEST);
    if (own.algorithm == DIGEST_KEYED)
        return entry;
    free(entry);
    return NULL;
}

bool cache_entry_check_header(const uint8_t *header, const struct digest_cache_key *key,
                              uint64_t *chunk_bytes, uint32_t *count, size_t *length)
{
    uint8_t expected[CACHE_ENTRY_HEADER];
    *chunk_bytes = get64(header + 48);
    if (!entry_length(key->size, *chunk_bytes, count, length))
        return false;
    put_key(expected, key);
    put64(expected + 48, *chunk_bytes);
    put32(expected + 56, *count);
    return get32(header + 8) == VERSION && memcmp(header, expected, sizeof expected) == 0;
}

bool cache_entry_decode(const uint8_t *entry, size_t length, uint32_t count,
                        const struct secret *secret, uint8_t *digests)
{
    if (length != CACHE_ENTRY_HEADER + ((size_t)count + 1) * CACHE_ENTRY_DIGEST)
        return false;
    size_t before = length - CACHE_ENTRY_DIGEST;
    struct digest own = digest_of(DIGEST_KEYED, secret, entry, before);
    if (own.algorithm != DIGEST_KEYED ||
        CRYPTO_memcmp(own.bytes, entry + before, CACHE_ENTRY_DIGEST) != 0)
        return false;
    if (count > 0)
        memcpy(digests, entry + CACHE_ENTRY_HEADER, (size_t)count * CACHE_ENTRY_DIGEST);
    return true;
}
