/* SPDX-License-Identifier: MIT
 *
 * An entry of the cache of chunk digests. Its own digest would keep the fuzzer out: the digest of
 * what it made is put behind it. Only what the encoder writes may be accepted. */
#include "tests/fuzz/digest_list_check.h"

#include "digest/digest_cache_entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest_cache_key key = {.device = 1,
                                   .inode = 2,
                                   .size = 200000,
                                   .mtime_ns = 3,
                                   .whole = {.algorithm = DIGEST_SHA256}};
    uint64_t chunk_bytes;
    uint32_t count;
    size_t length, again_length;
    if (size < CACHE_ENTRY_HEADER ||
        !cache_entry_check_header(data, &key, &chunk_bytes, &count, &length))
        return 0;
    uint8_t *entry = malloc(size + CACHE_ENTRY_DIGEST);
    XXH128_hash_t *digests = calloc((size_t)count + 1, sizeof *digests);
    require(entry != NULL && digests != NULL);
    memcpy(entry, data, size);
    XXH128_canonicalFromHash((XXH128_canonical_t *)(entry + size), XXH3_128bits(entry, size));
    if (cache_entry_decode(entry, size + CACHE_ENTRY_DIGEST, count, digests)) {
        uint8_t *again = cache_entry_encode(&key, chunk_bytes, digests, count, &again_length);
        require(again != NULL && again_length == length && length == size + CACHE_ENTRY_DIGEST);
        require(memcmp(again, entry, length) == 0);
        free(again);
    }
    free(entry);
    free(digests);
    return 0;
}
