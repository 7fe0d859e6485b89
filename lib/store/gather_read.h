/* SPDX-License-Identifier: MIT
 *
 * The bytes of tensors that do not lie in one piece: read from their files through a bounded window
 * and put in their places. */
#ifndef STORE_GATHER_READ_H
#define STORE_GATHER_READ_H

#include "formats/gather.h"
#include "unshard.h"

/* Memory that one call of gather_read takes beside the buffer. */
#define GATHER_WINDOW_BYTES (UINT64_C(1) << 20)
#define GATHER_ALIGNMENT 4096U

/* How gather_read gets at the files. Blocking. */
struct gather_source {
    void *context;
    /* Reads exactly [offset, offset + length) of a file on disk. buffer starts at a multiple of
     * GATHER_ALIGNMENT and has room for length rounded up to one; when `sparse` is not set, offset
     * is a multiple of it, too. sparse: what lies around will be wanted soon, so it should stay in
     * the page cache. 0, or a negative errno with *error. */
    int (*read)(void *context, uint32_t file, uint64_t offset, void *buffer, size_t length,
                bool sparse, struct unshard_error *error);
    /* Small pieces of this range will be read sparsely, in order. May be NULL. */
    void (*advise)(void *context, uint32_t file, uint64_t offset, uint64_t length);
    /* The size of a file: nothing beyond it is asked for, unless a tensor lies there. */
    uint64_t (*size)(void *context, uint32_t file);
};

/* Fills buffer with [offset, offset + length) of a gathered file, which must lie within it. Blocks
 * on the source. Thread-safe as far as the source is. 0, -ENOMEM, or the source's error. */
int gather_read(const struct gathered *file, uint64_t offset, void *buffer, size_t length,
                const struct gather_source *source, struct unshard_error *error);

#endif
