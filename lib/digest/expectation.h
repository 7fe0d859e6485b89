/* SPDX-License-Identifier: MIT
 *
 * What is known beforehand about the content of a file, and from where. Plain data in the arena of
 * the checkpoint, immutable once discovery is done. */
#ifndef DIGEST_EXPECTATION_H
#define DIGEST_EXPECTATION_H

#include "digest/digest.h"
#include "unshard.h"

#include <string.h>

/* A digest of the whole file. */
struct expected_digest {
    struct digest digest;
    const char *origin; /* for a person: "SHA256SUMS line 3", "hub cache blob name"... */
};

/* Digests of the file cut into chunks of chunk_bytes, the last one shorter. */
struct expected_chunks {
    uint64_t chunk_bytes; /* a power of two, 64 KiB to 64 MiB */
    uint32_t count;       /* all chunks of the file */
    enum digest_algorithm algorithm;
    const uint8_t *digests; /* of digest_size(algorithm) bytes each */
    const char *origin;
};

/* The digest that a chunk must have; DIGEST_NONE behind the last one. */
static inline struct digest expected_chunk(const struct expected_chunks *chunks, uint64_t index)
{
    struct digest digest = {.algorithm = DIGEST_NONE};
    size_t size = digest_size(chunks->algorithm);
    if (index < chunks->count) {
        digest.algorithm = chunks->algorithm;
        memcpy(digest.bytes, chunks->digests + index * size, size);
    }
    return digest;
}

/* Whether a chunk has the digest that it must have. */
static inline bool expected_chunks_match(const struct expected_chunks *chunks, uint64_t index,
                                         const struct digest *digest)
{
    size_t size = digest_size(chunks->algorithm);
    return index < chunks->count && digest->algorithm == chunks->algorithm &&
           memcmp(chunks->digests + index * size, digest->bytes, size) == 0;
}

/* Whether who can choose the content cannot choose what is told apart by these. */
static inline bool expected_chunks_are_strong(const struct expected_chunks *chunks)
{
    return chunks->algorithm == DIGEST_KEYED || digest_is_cryptographic(chunks->algorithm);
}

struct expectation {
    struct expected_digest *digests; /* best first: cryptographic ones, then by trust of the origin;
                                      * one for each algorithm, as far as known */
    uint32_t digest_count;
    const struct expected_chunks *chunks; /* of a manifest; NULL: none known */
    bool whole_elsewhere; /* somebody else than that manifest knows a cryptographic digest */
    bool has_size;
    uint64_t size; /* that the file must have, when has_size */
    const char *size_origin;
    bool contradicts; /* two origins cannot both be right: nothing of the file is served */
    struct unshard_error error; /* which origins and what they say, when contradicts */
};

#endif
