/* SPDX-License-Identifier: MIT
 *
 * One content of one source file: what it is known by, and what its bytes are believed by. A file
 * that changes on disk gets a new epoch when it begins anew; what was made for an old one (fetches,
 * passes) points to that, and cannot be mistaken for something of the new one: whether an epoch is
 * the current one is a comparison of pointers (epoch_is_current).
 *
 * What an epoch is does not change. Only its check does, once: a digest of the whole that has been
 * matched leaves digests of all chunks, of this mount or kept by an earlier one, by which each
 * chunk is believed from then on.
 *
 * Counted references: whoever looks at an epoch without the owner's lock has one. Taking one needs
 * the lock, or one of one's own; giving it back needs nothing. Nothing blocks.
 */
#ifndef ENGINE_EPOCH_H
#define ENGINE_EPOCH_H

#include "digest/expectation.h"
#include "store/source.h"

#include <stdatomic.h>

/* What has to hold before bytes of a file are believed. */
enum check_kind {
    CHECK_NONE,   /* nothing is known: what is read first must be read again the same */
    CHECK_CHUNKS, /* each chunk has a digest that it must match */
    CHECK_WHOLE   /* only the whole file has one: a pass over it tells, see pass.c */
};

/* Immutable, and there as long as its epoch. */
struct file_check {
    enum check_kind kind;
    struct expected_chunks chunks; /* of CHECK_CHUNKS */
};

#define CHUNK_TAG_BYTES 16U

/* Of a chunk: DIGEST_KEYED under engine->trust.secret where it may stand for a verified one, see
 * observe in check_chunk.c; of any other what it was when it was read. */
struct chunk_tag {
    uint8_t bytes[CHUNK_TAG_BYTES];
};

/* Chunk digests of a file that has matched as a whole. */
struct gained {
    struct file_check check;
    bool by_pass; /* in this mount; else an earlier one has kept them */
    struct chunk_tag digests[];
};

struct file_epoch {
    atomic_uint references;
    uint32_t file, number; /* 0: what discovery saw, then one more each time */
    struct source_identity identity;
    const struct expected_digest *whole; /* what a pass must find, or NULL */
    struct file_check known;             /* what is known beforehand */
    /* The owner's lock: */
    const struct file_check *check; /* `known`, or that of `gained` */
    struct gained *gained;          /* or NULL */
};

/* With one reference, the caller's; `check` is `known`. NULL when memory is short. */
struct file_epoch *epoch_new(uint32_t file, uint32_t number, const struct source_identity *identity,
                             const struct expected_digest *whole, const struct file_check *known);
/* Another one; returns the epoch. */
struct file_epoch *epoch_hold(struct file_epoch *epoch);
/* NULL is allowed. */
void epoch_release(struct file_epoch *epoch);
/* The whole has matched: takes `gained` over. `check` must be of CHECK_WHOLE. */
void epoch_gain(struct file_epoch *epoch, struct gained *gained);

/* For `count` chunks of chunk_bytes, copied; origin: of the digest that the whole has matched.
 * NULL when memory is short. free() it, or hand it to epoch_gain. */
struct gained *gained_new(uint64_t chunk_bytes, uint32_t count, const void *digests,
                          const char *origin, bool by_pass);

/* What discovery saw, and views were planned from. */
static inline bool epoch_is_first(const struct file_epoch *epoch)
{
    return epoch->number == 0;
}

/* A pass of this mount has found that the whole matches. */
static inline bool epoch_is_verified(const struct file_epoch *epoch)
{
    return epoch->gained != NULL && epoch->gained->by_pass;
}

#endif
