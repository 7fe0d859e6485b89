/* SPDX-License-Identifier: MIT
 *
 * Chunks that stay in their buffers for a while because the page cache is of no use for who will
 * ask for them: readers with O_DIRECT, which see nothing of it, and any readers where it takes no
 * pages. Bounded; the oldest go first.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_KEPT_H
#define ENGINE_KEPT_H

#include "digest/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kept_chunk {
    uint32_t file, index;
    const void *check;        /* what it was checked by; compared, never followed */
    struct digest digest;     /* its own, unless digests of chunks were matched */
    uint64_t asked, since_ns; /* bytes that reads have asked of it; since when it is kept */
    char *buffer;             /* owned */
};

struct kept_chunks {
    struct kept_chunk *chunks; /* the oldest first */
    size_t count, limit;
};

/* At most `limit` chunks. 0 or -ENOMEM. */
int kept_init(struct kept_chunks *kept, size_t limit);
/* The buffers belong to the engine. */
void kept_free(struct kept_chunks *kept);
/* Takes a chunk over, which must not be kept yet; there must be room. */
void kept_put(struct kept_chunks *kept, const struct kept_chunk *chunk);
bool kept_has(const struct kept_chunks *kept, uint32_t file, uint32_t index);
/* Hands the chunk back, if it is kept. */
bool kept_take(struct kept_chunks *kept, uint32_t file, uint32_t index, struct kept_chunk *out);
/* Hands the oldest back that has been kept since `before_ns` or longer, if there is one. */
bool kept_take_oldest(struct kept_chunks *kept, uint64_t before_ns, struct kept_chunk *out);
/* Hands any chunk of the file back, if one is kept. */
bool kept_take_of(struct kept_chunks *kept, uint32_t file, struct kept_chunk *out);

#endif
