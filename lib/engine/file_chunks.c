/* SPDX-License-Identifier: MIT
 *
 * The chunks of a file. What a header or a sparse file claims may be many terabytes: the arrays are
 * lazy, and of each group of chunks a bit tells whether anything was ever written to it.
 */
#include "engine/engine_internal.h"

#include "base/lazy_array.h"

#include <errno.h>

#define GROUP 4096U
#define BITS 64U

static size_t touched_words(uint32_t chunk_count)
{
    return (chunk_count / GROUP + BITS) / BITS;
}

int file_chunks_make(const struct unshard_engine *engine, struct file_state *file, uint64_t size)
{
    uint64_t count = size / engine->chunk_bytes + (size % engine->chunk_bytes != 0);
    if (count >= UINT32_MAX)
        return -EFBIG;
    file->size = size;
    file->chunk_count = (uint32_t)count;
    file->chunks = lazy_array_new(count + 1, sizeof *file->chunks);
    file->digests = lazy_array_new(count + 1, sizeof *file->digests);
    file->touched = lazy_array_new(touched_words((uint32_t)count), sizeof *file->touched);
    bool made = file->chunks != NULL && file->digests != NULL && file->touched != NULL;
    if (made && wanted_init(&file->wanted, (uint32_t)count) == 0)
        return 0;
    file_chunks_free(file);
    return -ENOMEM;
}

void file_chunks_free(struct file_state *file)
{
    size_t count = (size_t)file->chunk_count + 1;
    lazy_array_free(file->chunks, count, sizeof *file->chunks);
    outliving_remove(file);
    lazy_array_free(file->digests, count, sizeof *file->digests);
    lazy_array_free(file->touched, touched_words(file->chunk_count), sizeof *file->touched);
    wanted_free(&file->wanted);
    chunk_runs_free(&file->shown);
    chunk_runs_free(&file->gathered);
    file->chunks = NULL;
    file->digests = NULL;
    file->touched = NULL;
    file->chunk_count = 0;
}

void chunk_touch(struct file_state *file, uint32_t index)
{
    uint32_t group = index / GROUP;
    file->touched[group / BITS] |= UINT64_C(1) << group % BITS;
}

uint32_t chunk_next_touched(const struct file_state *file, uint32_t index)
{
    while (index < file->chunk_count) {
        uint32_t group = index / GROUP;
        uint64_t rest = file->touched[group / BITS] >> group % BITS;
        if ((rest & 1) != 0)
            return index;
        uint64_t next = rest != 0 ? group + (uint32_t)__builtin_ctzll(rest)
                                  : (uint64_t)(group / BITS + 1) * BITS;
        if (next * GROUP >= file->chunk_count)
            break;
        index = (uint32_t)next * GROUP;
    }
    return file->chunk_count;
}
