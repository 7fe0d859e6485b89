/* SPDX-License-Identifier: MIT
 *
 * What bytes are checked by, and checking them: check_setup.c decides for each epoch, check_chunk.c
 * compares.
 */
#ifndef ENGINE_TRUST_H
#define ENGINE_TRUST_H

#include "base/number_set.h"
#include "digest/digest_cache.h"
#include "digest/secret.h"
#include "engine/chunks.h"
#include "engine/epoch.h"

struct file_state;

/* Names of one file, see same_file.c. Lazy arrays by file. */
struct same_files {
    size_t room;       /* of each of the first two */
    uint32_t *next;    /* in its ring of names, and one; 0: itself */
    uint32_t *by_name; /* with the same hash of device and inode: the next, and one; 0: none */
    uint32_t *buckets; /* ... and the first */
};

struct trust {
    struct secret secret;       /* of the digests of chunks made here; const after start */
    struct digest_cache *cache; /* chunk digests of earlier mounts; NULL: none; const after start */
    struct number_set to_keep;  /* files whose gained digests are to be written to it */
    struct same_files same_files;
};

/* The code of the error for a file whose header was read otherwise when the views were planned:
 * none of it can be served. */
#define HEADER_MISMATCH "header-mismatch"

/* Before there are threads, and files. 0 or a negative errno. */
int checks_init(struct unshard_engine *engine);
void checks_free(struct unshard_engine *engine);
/* Decides what a new file is checked by, before anybody knows of it: its first epoch. No lock held;
 * blocks on the cache of digests. 0 or -ENOMEM. */
int check_make(struct unshard_engine *engine, uint32_t file);
/* What a file cannot be, whatever it holds: origins contradict each other about it, or it is not as
 * long as it must be. 0, or -EIO with *error. Takes no lock. */
int check_possible(const struct unshard_engine *engine, uint32_t file, uint64_t size,
                   struct unshard_error *error);
/* What was read against the digest that it must match, and the header as it was read before;
 * without a digest to match, its own goes to fetch->digest. No lock held. 0, or -EIO with *error,
 * code "mismatch" or HEADER_MISMATCH. */
int check_chunk(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error);
/* Bytes of a file, from a multiple of HEADER_PIECE_BYTES on, against what discovery read of them.
 * 0, or -EIO with the code HEADER_MISMATCH. */
int check_header(struct unshard_engine *engine, uint32_t file, uint64_t start, const char *bytes,
                 uint64_t length, struct unshard_error *error);
/* One chunk of a file, as long as the digests are of, against its digest. No lock. As above. */
int check_bytes(struct unshard_engine *engine, uint32_t file, const struct file_check *check,
                uint64_t offset, const char *bytes, uint64_t length, struct unshard_error *error);
/* What was read against what was read before, after a check_chunk that succeeded and before the
 * chunk is `seen`. The caller holds engine->lock. 0, or -EIO with *error, code "changed". */
int check_observed(struct unshard_engine *engine, const struct fetch *fetch,
                   struct unshard_error *error);
/* For the status: which digest the piece at `offset` of a file should have had, and which it has.
 * The caller holds engine->lock. */
void note_chunk_mismatch(struct file_state *file, const struct file_check *check,
                         const struct digest *actual, uint64_t offset);
/* Under what the cache keeps the chunk digests of an epoch that has a digest of the whole. */
struct digest_cache_key pass_cache_key(const struct file_epoch *epoch);
/* Writes chunk digests that passes have brought to the cache. No lock held. May hang with the file
 * system that the cache is on. */
void keep_gained(struct unshard_engine *engine);

#endif
