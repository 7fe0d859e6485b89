/* Memory that is freed all at once: names, shapes, extents of one checkpoint. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/memory_budget.h"

#include <stdbool.h>
#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first; zero-initialised is an empty arena */
    size_t bytes;               /* handed out so far */
    /* What all blocks are taken from; NULL: no limit. Set while the arena is empty. */
    struct memory_budget *budget;
    size_t charged;                /* by arena_charge */
    struct arena_adopted *adopted; /* by arena_adopt */
    bool refused;                  /* something was not to be had because the budget was used up */
};

/* Zeroed memory aligned for any type, or NULL. Freed by arena_free only. size 0 gives a pointer. */
void *arena_alloc(struct arena *arena, size_t size);
/* arena_alloc of count * size, NULL also on overflow. */
void *arena_alloc_array(struct arena *arena, size_t count, size_t size);
/* A terminated copy of length bytes (which may hold NUL), or NULL. */
char *arena_copy_string(struct arena *arena, const char *string, size_t length);
/* Memory that is no block of the arena, but taken for the same work: counts as long as it is there.
 * False: it is not to be taken, the budget is used up. */
bool arena_charge(struct arena *arena, size_t bytes);
void arena_discharge(struct arena *arena, size_t bytes);
/* Takes malloc'd memory over, and what was charged for it: it is freed with the arena. False: no
 * memory; then it is still the caller's. */
bool arena_adopt(struct arena *arena, void *memory);
/* An empty arena that takes from the same budget. */
struct arena arena_beside(const struct arena *arena);
/* Frees what arena_beside has given; what it was refused counts for `arena`. */
void arena_free_beside(struct arena *beside, struct arena *arena);
/* Bytes of all blocks, whatever of them is handed out. */
size_t arena_memory(const struct arena *arena);
/* Frees all blocks and empties the arena; `refused` and the budget stay. */
void arena_free(struct arena *arena);

#endif
