/* SPDX-License-Identifier: MIT
 *
 * Chunks that were read to be hashed, and may be served only when their whole file has matched: so
 * that they need not be read from storage again, they stay in the buffers that they were read into,
 * which are lent (buffers.h). They are taken back with these, neither copied nor checked again:
 * nobody else can write to this memory.
 *
 * The end of a file that is much shorter than a buffer is copied out of it: a checkpoint may have
 * thousands of small files.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_STAGING_H
#define ENGINE_STAGING_H

#include "engine/buffers.h"

struct staged_file {
    char **chunks; /* of each the buffer or the copy, or NULL; lazy; NULL when nothing is staged */
    uint64_t size;
    uint32_t count; /* that are staged */
};

struct staging {
    struct buffers *buffers;
    struct staged_file *files; /* lazy */
    uint32_t file_count;       /* there may be so many */
    uint32_t file_end;         /* those that have been staged are below */
    uint64_t bytes;            /* of memory that is held */
    uint64_t reserved;         /* ... and that passes under way may take, */
    uint64_t budget;           /* ... and that both together should not exceed */
};

/* 0 or -ENOMEM; either way staging_free. */
int staging_init(struct staging *staging, struct buffers *buffers, uint32_t file_count);
void staging_free(struct staging *staging);

/* What the chunks of a file of so many bytes take. */
uint64_t staging_cost(const struct staging *staging, uint64_t size);
/* How much may be reserved. */
uint64_t staging_room(const struct staging *staging);

bool staging_has(const struct staging *staging, uint32_t file, uint32_t index);
/* Takes over the buffer with a chunk, which must not be staged yet, of a file of so many bytes.
 * False: there is no memory for it, and the buffer is still the caller's. */
bool staging_put(struct staging *staging, uint32_t file, uint64_t size, uint32_t index,
                 char *buffer);
/* Hands a staged chunk back in a buffer, as of buffers_take: there must be a free one. */
char *staging_take(struct staging *staging, uint32_t file, uint32_t index);
/* Nothing of the file is staged any more. */
void staging_forget(struct staging *staging, uint32_t file);

#endif
