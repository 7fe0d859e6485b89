/* SPDX-License-Identifier: MIT */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK_SIZE ((size_t)1024)
#define LARGEST_BLOCK_SIZE ((size_t)1 << 20)

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    alignas(max_align_t) char data[];
};

struct arena_adopted {
    struct arena_adopted *next;
    void *memory;
};

/* Allocations this large get a block of their own, so that the rest of the newest one is not lost.
 */
static size_t block_size_for(const struct arena *arena, size_t size)
{
    size_t standard = FIRST_BLOCK_SIZE;

    while (standard < LARGEST_BLOCK_SIZE && standard < arena->bytes / 4)
        standard *= 2;
    return size > standard / 2 ? size : standard;
}

static struct arena_block *add_block(struct arena *arena, size_t size)
{
    size_t block_size = block_size_for(arena, size);
    struct arena_block *block, *newest = arena->blocks;

    if (block_size > SIZE_MAX - sizeof *block)
        return NULL;
    if (!memory_budget_take(arena->budget, sizeof *block + block_size)) {
        arena->refused = true;
        return NULL;
    }
    block = calloc(1, sizeof *block + block_size);
    if (block == NULL) {
        memory_budget_give(arena->budget, sizeof *block + block_size);
        return NULL;
    }
    block->size = block_size;
    if (newest != NULL && block_size == size && newest->size - newest->used > size / 8) {
        block->next = newest->next;
        newest->next = block;
    } else {
        block->next = newest;
        arena->blocks = block;
    }
    return block;
}

static void *take(struct arena *arena, size_t size, size_t alignment)
{
    struct arena_block *block = arena->blocks;

    if (size > PTRDIFF_MAX)
        return NULL;
    size_t start = block == NULL ? 0 : (block->used + alignment - 1) & ~(alignment - 1);

    if (block == NULL || start > block->size || block->size - start < size) {
        block = add_block(arena, size);
        if (block == NULL)
            return NULL;
        start = 0;
    }
    block->used = start + size;
    arena->bytes += size;
    return block->data + start;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    return take(arena, size == 0 ? 1 : size, alignof(max_align_t));
}

void *arena_alloc_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return arena_alloc(arena, bytes);
}

char *arena_copy_string(struct arena *arena, const char *string, size_t length)
{
    char *copy;

    if (length == SIZE_MAX)
        return NULL;
    copy = take(arena, length + 1, 1);
    if (copy == NULL)
        return NULL;
    if (length > 0)
        memcpy(copy, string, length);
    copy[length] = '\0';
    return copy;
}

bool arena_adopt(struct arena *arena, void *memory)
{
    struct arena_adopted *adopted = arena_alloc(arena, sizeof *adopted);
    if (adopted == NULL)
        return false;
    *adopted = (struct arena_adopted){arena->adopted, memory};
    arena->adopted = adopted;
    return true;
}

void arena_free(struct arena *arena)
{
    for (; arena->adopted != NULL; arena->adopted = arena->adopted->next)
        free(arena->adopted->memory);
    struct arena_block *block = arena->blocks;

    while (block != NULL) {
        struct arena_block *next = block->next;

        memory_budget_give(arena->budget, sizeof *block + block->size);
        free(block);
        block = next;
    }
    arena_discharge(arena, arena->charged);
    arena->blocks = NULL;
    arena->bytes = 0;
}

bool arena_charge(struct arena *arena, size_t bytes)
{
    if (!memory_budget_take(arena->budget, bytes)) {
        arena->refused = true;
        return false;
    }
    arena->charged += bytes;
    return true;
}

void arena_discharge(struct arena *arena, size_t bytes)
{
    memory_budget_give(arena->budget, bytes);
    arena->charged -= bytes;
}

struct arena arena_beside(const struct arena *arena)
{
    return (struct arena){.budget = arena->budget};
}

void arena_free_beside(struct arena *beside, struct arena *arena)
{
    arena->refused = arena->refused || beside->refused;
    arena_free(beside);
}

size_t arena_memory(const struct arena *arena)
{
    size_t bytes = 0;
    for (const struct arena_block *block = arena->blocks; block != NULL; block = block->next)
        bytes += sizeof *block + block->size;
    return bytes;
}
