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
    static const struct secret secret;
    uint64_t chunk_bytes;
    uint32_t count;
    size_t length, again_length;
    if (size < CACHE_ENTRY_HEADER ||
        !cache_entry_check_header(data, &key, &chunk_bytes, &count, &length))
        return 0;
    uint8_t *entry = malloc(size + CACHE_ENTRY_DIGEST);
    uint8_t *digests = calloc((size_t)count + 1, CACHE_ENTRY_DIGEST);
    require(entry != NULL && digests != NULL);
    memcpy(entry, data, size);
    struct digest own = digest_of(DIGEST_KEYED, &secret, entry, size);
    memcpy(entry + size, own.bytes, CACHE_ENTRY_DIGEST);
    if (cache_entry_decode(entry, size + CACHE_ENTRY_DIGEST, count, &secret, digests)) {
        uint8_t *again =
            cache_entry_encode(&key, chunk_bytes, digests, count, &secret, &again_length);
        require(again != NULL && again_length == length && length == size + CACHE_ENTRY_DIGEST);
        require(memcmp(again, entry, length) == 0);
        free(again);
    }
    free(entry);
    free(digests);
    return 0;
}
