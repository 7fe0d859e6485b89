/* SPDX-License-Identifier: MIT */
#include "status/status_memory.h"

#include <stdlib.h>

struct status_memory {
    struct arena arena;
    struct memory_budget budget;
    void (*freed)(void *context); /* or NULL */
    void *context;
};

struct unshard_status *status_new(size_t most_bytes, struct arena **arena)
{
    struct status_memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return NULL;
    memory->budget.limit = most_bytes;
    memory->arena.budget = most_bytes > 0 ? &memory->budget : NULL;
    struct unshard_status *status = arena_alloc(&memory->arena, sizeof *status);
    if (status == NULL) {
        free(memory);
        return NULL;
    }
    status->memory = memory;
    *arena = &memory->arena;
    return status;
}

void status_on_free(struct unshard_status *status, void (*freed)(void *context), void *context)
{
    struct status_memory *memory = status->memory;
    memory->freed = freed;
    memory->context = context;
}

void unshard_status_free(struct unshard_status *status)
{
    if (status == NULL)
        return;
    struct status_memory *memory = status->memory; /* the status lies in it, too */
    arena_free(&memory->arena);
    if (memory->freed != NULL)
        memory->freed(memory->context);
    free(memory);
}
