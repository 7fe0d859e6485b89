/* SPDX-License-Identifier: MIT
 *
 * What is known beforehand about the content of a file, and from where. Plain data in the arena of
 * the checkpoint, immutable once discovery is done. */
#ifndef DIGEST_EXPECTATION_H
#define DIGEST_EXPECTATION_H

#include "base/xxh3.h"
#include "digest/digest.h"
#include "unshard.h"

/* A digest of the whole file. */
struct expected_digest {
    struct digest digest;
    const char *origin; /* for a person: "SHA256SUMS line 3", "hub cache blob name"... */
};

/* Digests of the file cut into chunks of chunk_bytes, the last one shorter. */
struct expected_chunks {
    uint64_t chunk_bytes; /* a power of two, 64 KiB to 64 MiB */
    uint32_t count;       /* all chunks of the file */
    const XXH128_hash_t *digests;
    const char *origin;
};

struct expectation {
    struct expected_digest *digests; /* best first: cryptographic ones, then by trust of the origin;
                                      * one for each algorithm, as far as known */
    uint32_t digest_count;
    const struct expected_chunks *chunks; /* of a manifest; NULL: none known */
    bool has_size;
    uint64_t size; /* that the file must have, when has_size */
    const char *size_origin;
    bool contradicts; /* two origins cannot both be right: nothing of the file is served */
    struct unshard_error error; /* which origins and what they say, when contradicts */
};

#endif
