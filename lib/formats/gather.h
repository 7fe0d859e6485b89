/* SPDX-License-Identifier: MIT
 *
 * A tensor whose bytes do not lie in a file as safetensors wants them: one that is not contiguous
 * (transposed, channels last, sliced, expanded), or one of which several files hold a part each.
 * It is described by boxes, each a regular grid of runs of bytes that goes to a regular grid in the
 * tensor. Plain data and pure functions; who reads the bytes is store/gather_read.c. */
#ifndef FORMATS_GATHER_H
#define FORMATS_GATHER_H

#include "base/arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GATHER_MAX_RANK 64U

struct gather_dimension {
    uint64_t count;                        /* 2 or more */
    uint64_t source_stride, target_stride; /* bytes from one to the next */
};

/* The runs (i, j, ...): `run` bytes from source + i*s0 + j*s1 + ... to target + i*t0 + j*t1 + ...
 * Going through the dimensions in order, the last one fastest, targets ascend and do not overlap.
 */
struct gather_box {
    uint32_t file; /* number of the source file */
    uint32_t rank;
    uint64_t source; /* offset in the file */
    uint64_t target; /* offset in the tensor */
    uint64_t run;    /* bytes, not 0 */
    const struct gather_dimension *dimensions;
};

/* The targets of all boxes together are [0, length), each byte once. */
struct gather {
    struct gather_box *boxes;
    uint32_t box_count;
    uint64_t length;
    /* Of one box: bytes in the source between neighbours along each dimension of the tensor, for
     * who makes the tensor a part of a larger one; NULL otherwise. */
    const uint64_t *strides;
};

/* Tensors laid end to end: the content of a file that is not on disk. */
struct gathered_piece {
    const struct gather *gather;
    uint64_t offset;  /* in the file; pieces are in order and without holes */
    const char *name; /* of the tensor, for messages; quoted */
};
struct gathered_source {
    uint32_t file;
    uint64_t bytes; /* of the gathered file that come from it */
};
struct gathered {
    struct gathered_piece *pieces;
    uint32_t count;
    uint64_t size;
    struct gathered_source *sources; /* each file once; filled in by gathered_copy */
    uint32_t source_count;
};

/* Elements of a rectangle: shape, and strides in bytes in the source and in the target. */
struct gather_grid {
    uint32_t file, rank;
    uint64_t source, target, element_size;
    const uint64_t *shape, *source_strides, *target_strides;
};

/* Makes the box of a grid without a 0 in its shape: runs as long and dimensions as few as can be.
 * rank at most GATHER_MAX_RANK. Dimensions live in the arena. 0 or -ENOMEM. */
int gather_box_make(const struct gather_grid *grid, struct arena *arena, struct gather_box *out);

/* Bytes from the first to the end of the last byte of the source that the box touches. */
uint64_t gather_box_span(const struct gather_box *box);
uint64_t gather_box_run_count(const struct gather_box *box);

/* The tensor as runs in order of the target, when they are few and long enough to be worth an
 * extent each; false when it is better gathered. *runs is malloc'd; true with NULL in it: memory is
 * short. */
struct gather_run {
    uint64_t target, source, length;
    uint32_t file;
};
bool gather_runs(const struct gather *gather, struct gather_run **runs, size_t *count);

/* The same files hold the parts of both. (Of one set of files only if its boxes come in one order,
 * which is good enough to tell whether they fail together.) */
bool gather_same_files(const struct gather *a, const struct gather *b);

/* A deep copy in another arena, or NULL. */
const struct gathered *gathered_copy(const struct gathered *gathered, struct arena *arena);

#endif
