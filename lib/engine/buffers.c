/* SPDX-License-Identifier: MIT */
#include "engine/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MOST_RESERVE 8U
#define LEAST_RESERVE 2U

static size_t reserve_of(size_t count)
{
    size_t share = count / 8;
    return share < LEAST_RESERVE ? LEAST_RESERVE : share > MOST_RESERVE ? MOST_RESERVE : share;
}

int buffers_init(struct buffers *buffers, uint64_t bytes, uint32_t each)
{
    size_t count = (size_t)(bytes / each);
    count = count < LEAST_BUFFERS ? LEAST_BUFFERS : count;
    *buffers = (struct buffers){.count = count, .each = each, .reserve = reserve_of(count)};
    buffers->free = calloc(count, sizeof *buffers->free);
    char *memory =
        mmap(NULL, count * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED)
        buffers->memory = memory;
    if (buffers->memory == NULL || buffers->free == NULL)
        return -ENOMEM;
    madvise(memory, count * each, MADV_HUGEPAGE);
    while (buffers->free_count < count)
        buffers_give(buffers, memory + (count - 1 - buffers->free_count) * each);
    return kept_init(&buffers->kept, (count - buffers->reserve) / 2);
}

void buffers_destroy(struct buffers *buffers)
{
    if (buffers->memory != NULL)
        munmap(buffers->memory, buffers->count * buffers->each);
    free(buffers->free);
    kept_free(&buffers->kept);
}

char *buffers_take(struct buffers *buffers)
{
    return buffers->free[--buffers->free_count];
}

void buffers_give(struct buffers *buffers, char *buffer)
{
    buffers->free[buffers->free_count++] = buffer;
}

bool buffers_may_fetch(const struct buffers *buffers)
{
    return buffers->free_count + buffers->kept.count > buffers->reserve;
}

static bool give_oldest(struct buffers *buffers)
{
    struct kept_chunk oldest;
    if (!kept_take_oldest(&buffers->kept, UINT64_MAX, &oldest))
        return false;
    buffers_give(buffers, oldest.buffer);
    return true;
}

void buffers_reclaim(struct buffers *buffers, size_t least)
{
    while (buffers->free_count <= least && give_oldest(buffers))
        continue;
}

void buffers_keep(struct buffers *buffers, const struct kept_chunk *chunk)
{
    if (buffers->kept.count >= buffers->kept.limit)
        give_oldest(buffers);
    kept_put(&buffers->kept, chunk);
}

void buffers_forget(struct buffers *buffers, uint32_t file)
{
    struct kept_chunk chunk;
    while (kept_take_of(&buffers->kept, file, &chunk))
        buffers_give(buffers, chunk.buffer);
}
