/* SPDX-License-Identifier: MIT
 *
 * Chunk digests kept from mount to mount. They are gained when a whole file is read and its digest
 * matches; the next mount then verifies chunk by chunk and has not to read the whole file first.
 * They stand for the digest of the whole, so they are made with a secret of the user's
 * (DIGEST_KEYED): who can write to the file cannot make other bytes that have them.
 *
 * Entries are files below $UNSHARD_CACHE_DIR, else $XDG_CACHE_HOME/unshard, else
 * $HOME/.cache/unshard, else, for root, /var/cache/unshard. An entry is believed only when it and
 * its directory belong to this user and nobody else may write there, when it was made with the
 * secret (a keyed digest of its own), and when it is of just the file that is asked about: device,
 * inode, size, mtime, ctime and the digest that the whole file must have. Others are removed.
 *
 * Safe against other processes that load and store at the same time: an entry appears whole, by
 * rename. All functions block on I/O, hold no lock and may be called from any thread. */
#ifndef DIGEST_DIGEST_CACHE_H
#define DIGEST_DIGEST_CACHE_H

#include "digest/digest.h"
#include "digest/secret.h"
#include "unshard.h"

#define DIGEST_CACHE_DEFAULT_LIMIT (UINT64_C(256) << 20)

/* The file that chunk digests belong to. */
struct digest_cache_key {
    uint64_t device, inode, size;
    int64_t mtime_ns, ctime_ns; /* the latter nobody can set */
    struct digest whole;        /* that the content has been verified against, and must be again */
};

struct digest_cache;

/* Finds the directory, and makes it when it is not there. limit_bytes: of all entries together, 0
 * for the default. *out is owned by the caller. On failure ("no-cache-directory": none is
 * configured, it cannot be made, or others may write to it) the caller does without; *out is NULL,
 * with which every function below may be called: nothing is found then and nothing stored. */
int digest_cache_open(uint64_t limit_bytes, struct digest_cache **out, struct unshard_error *error);
void digest_cache_close(struct digest_cache *cache);
/* What the digests in it are made with; NULL for no cache. Valid as long as the cache. */
const struct secret *digest_cache_secret(const struct digest_cache *cache);

/* Looks an entry up. 0 and *digests (DIGEST_KEYED, to free with free), *count chunks of
 * *chunk_bytes each, the last one shorter: just as many as the size asks for; -ENOENT when there is
 * none to be believed; -ENOMEM. */
int digest_cache_load(struct digest_cache *cache, const struct digest_cache_key *key,
                      uint64_t *chunk_bytes, uint8_t **digests, uint32_t *count);

/* Keeps the chunk digests of a file, in place of what was kept of it before, and removes the oldest
 * entries when there are too many. chunk_bytes: a power of two, 64 KiB to 64 MiB. 0 or a negative
 * errno with *error; the cache is as it was then. */
int digest_cache_store(struct digest_cache *cache, const struct digest_cache_key *key,
                       uint64_t chunk_bytes, const uint8_t *digests, uint32_t count,
                       struct unshard_error *error);

#endif
