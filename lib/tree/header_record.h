/* SPDX-License-Identifier: MIT
 *
 * What the bytes were that a header was made out of. Views are planned from headers before anything
 * is verified: when the same bytes are read again and verified, they must be those that were used.
 */
#ifndef TREE_HEADER_RECORD_H
#define TREE_HEADER_RECORD_H

#include "base/arena.h"
#include "base/xxh3.h"

#include <stdbool.h>

/* Bytes lie in pieces that no boundary of this size cuts: so they lie in one chunk each. */
#define HEADER_PIECE_BYTES (UINT64_C(64) << 10)

struct header_piece {
    uint64_t offset;
    uint32_t length;
    XXH128_hash_t digest; /* XXH3-128 */
};

/* Of one file, in the order of the reads. Zero-initialised is empty. */
struct header_record {
    struct header_piece *pieces; /* malloc'd */
    uint32_t count, capacity;
};

/* Bytes that were read at an offset. Past a bound, or when memory is short, they are not recorded:
 * then less is compared. Not thread-safe. */
void header_record_note(struct header_record *record, uint64_t offset, const void *bytes,
                        size_t length);
/* Moves the pieces to an arena, and empties the record. NULL when there are none, or no memory. */
const struct header_piece *header_record_take(struct header_record *record, struct arena *arena,
                                              uint32_t *count);
void header_record_free(struct header_record *record);

/* Whether what lies at [start, start + length) of the file now is what the pieces within say. If
 * not, *offset is where one begins that differs. start is a multiple of HEADER_PIECE_BYTES. Pure.
 */
bool header_pieces_match(const struct header_piece *pieces, uint32_t count, uint64_t start,
                         const char *bytes, size_t length, uint64_t *offset);

#endif
