/* SPDX-License-Identifier: MIT
 *
 * An entry of the cache of chunk digests as bytes, all numbers little-endian:
 *   0    8   "unshdig1"
 *   8    4   version, 2              12   4   algorithm of the digest of the whole file
 *   16   8   device                  24   8   inode
 *   32   8   size                    40   8   mtime in nanoseconds
 *   48   8   bytes of a chunk        56   4   number of chunks     60   4   zero
 *   64   64  digest of the whole file, zero behind its end
 *   128  8   ctime in nanoseconds    136  8   zero
 *   144  16  for each chunk, its keyed digest
 *   then 16  keyed digest of all that stands before */
#ifndef DIGEST_DIGEST_CACHE_ENTRY_H
#define DIGEST_DIGEST_CACHE_ENTRY_H

#include "digest/digest_cache.h"

#define CACHE_ENTRY_HEADER 144U
#define CACHE_ENTRY_DIGEST 16U

/* The entry as malloc'd bytes. NULL when memory is short or the numbers do not fit together. */
uint8_t *cache_entry_encode(const struct digest_cache_key *key, uint64_t chunk_bytes,
                            const uint8_t *digests, uint32_t count, const struct secret *secret,
                            size_t *length);

/* Looks at a header of CACHE_ENTRY_HEADER bytes: whether it is one of this key. Tells how long the
 * whole entry must be. Says nothing about the rest. */
bool cache_entry_check_header(const uint8_t *header, const struct digest_cache_key *key,
                              uint64_t *chunk_bytes, uint32_t *count, size_t *length);

/* Takes an entry apart whose header has been checked: whether its own digest is right; then fills
 * digests, which has room for all. */
bool cache_entry_decode(const uint8_t *entry, size_t length, uint32_t count,
                        const struct secret *secret, uint8_t *digests);

#endif
