/* SPDX-License-Identifier: MIT */
#include "tree/header_record.h"

#include <stdlib.h>
#include <string.h>

/* A header of 100 MB in one read has 1526 pieces; a format that reads in small steps has more. */
#define MOST_PIECES 65536U

static struct header_piece *add(struct header_record *record)
{
    if (record->count == MOST_PIECES)
        return NULL;
    if (record->count == record->capacity) {
        uint32_t capacity = record->capacity == 0 ? 4 : record->capacity * 2;
        struct header_piece *grown = reallocarray(record->pieces, capacity, sizeof *grown);
        if (grown == NULL)
            return NULL;
        record->pieces = grown;
        record->capacity = capacity;
    }
    return &record->pieces[record->count++];
}

void header_record_note(struct header_record *record, uint64_t offset, const void *bytes,
                        size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        uint64_t part = HEADER_PIECE_BYTES - offset % HEADER_PIECE_BYTES;
        if (part > length)
            part = length;
        struct header_piece *piece = add(record);
        if (piece == NULL)
            return;
        *piece = (struct header_piece){offset, (uint32_t)part, XXH3_128bits(at, (size_t)part)};
        offset += part;
        at += part;
        length -= part;
    }
}

const struct header_piece *header_record_take(struct header_record *record, struct arena *arena,
                                              uint32_t *count)
{
    struct header_piece *copy = NULL;
    *count = 0;
    if (record->count > 0)
        copy = arena_alloc_array(arena, record->count, sizeof *copy);
    if (copy != NULL) {
        memcpy(copy, record->pieces, record->count * sizeof *copy);
        *count = record->count;
    }
    header_record_free(record);
    return copy;
}

void header_record_free(struct header_record *record)
{
    free(record->pieces);
    *record = (struct header_record){0};
}

bool header_pieces_match(const struct header_piece *pieces, uint32_t count, uint64_t start,
                         const char *bytes, size_t length, uint64_t *offset)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct header_piece *piece = &pieces[i];
        if (piece->offset < start || piece->offset + piece->length > start + length)
            continue;
        XXH128_hash_t now = XXH3_128bits(bytes + (piece->offset - start), piece->length);
        if (XXH128_isEqual(now, piece->digest))
            continue;
        *offset = piece->offset;
        return false;
    }
    return true;
}
