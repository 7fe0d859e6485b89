/* SPDX-License-Identifier: MIT
 *
 * Digests of any algorithm that checkpoints come with, and computing them piece by piece. */
#ifndef DIGEST_DIGEST_H
#define DIGEST_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum digest_algorithm {
    DIGEST_NONE,
    DIGEST_SHA256,
    DIGEST_SHA512,
    DIGEST_SHA1,
    DIGEST_GIT_SHA1, /* of "blob LENGTH\0" and the content: a git object id */
    DIGEST_MD5,
    DIGEST_XXH32,
    DIGEST_XXH64,
    DIGEST_XXH3_64,
    DIGEST_XXH3_128,
    DIGEST_KEYED, /* of chunks, under a secret of the user's: see secret.h; made here, never read */
    DIGEST_ALGORITHM_COUNT
};

#define DIGEST_MAX_BYTES 64
#define DIGEST_MAX_HEX (2 * DIGEST_MAX_BYTES + 1)

struct digest {
    enum digest_algorithm algorithm;
    uint8_t bytes[DIGEST_MAX_BYTES]; /* big-endian (canonical) for the xxHash family; rest zero */
};

/* Bytes of a digest; 0 for DIGEST_NONE. */
size_t digest_size(enum digest_algorithm algorithm);
/* "sha256", "git-sha1", "xxh3-128"...: for status files and messages. */
const char *digest_algorithm_name(enum digest_algorithm algorithm);
/* Whether it also holds against somebody who made the file up (SHA-256, SHA-512); the others find
 * corruption only. */
bool digest_is_cryptographic(enum digest_algorithm algorithm);

/* False unless `hex` is exactly digest_size() * 2 hexadecimal digits of either case. */
bool digest_from_hex(enum digest_algorithm algorithm, const char *hex, size_t length,
                     struct digest *out);
/* Lower-case hex, terminated. Returns out. */
const char *digest_to_hex(const struct digest *digest, char out[DIGEST_MAX_HEX]);
/* Same algorithm and same bytes. DIGEST_NONE equals nothing, itself included. */
bool digest_equal(const struct digest *a, const struct digest *b);

/* One running computation. Not thread-safe. */
struct hasher;
/* file_size: of the whole content, which git's digest needs beforehand. NULL: no memory, or the
 * crypto library does not offer the algorithm. */
struct hasher *hasher_new(enum digest_algorithm algorithm, uint64_t file_size);
/* Of DIGEST_KEYED: AES-256-GMAC with a constant nonce. Two contents have the same digest with a
 * chance of length / 2^132 for whoever knows neither the secret nor digests made with it: so these
 * are shown to nobody. NULL as above. */
struct secret;
struct hasher *hasher_new_keyed(const struct secret *secret);
/* The digest of one piece; secret: of DIGEST_KEYED, else not used. DIGEST_NONE as above, or when
 * there is no memory. */
struct digest digest_of(enum digest_algorithm algorithm, const struct secret *secret,
                        const void *data, size_t length);
/* Another one that has been fed the same; not of DIGEST_KEYED. NULL when there is no memory. */
struct hasher *hasher_copy(const struct hasher *hasher);
void hasher_update(struct hasher *hasher, const void *data, size_t length);
/* The digest of all that was fed; the hasher can only be freed then. DIGEST_NONE, which no
 * expectation equals, when the crypto library failed. */
void hasher_finish(struct hasher *hasher, struct digest *out);
/* NULL is allowed. */
void hasher_free(struct hasher *hasher);

#endif
