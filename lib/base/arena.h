/* Memory that is freed all at once: names, shapes, extents of one checkpoint. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first; zero-initialised is an empty arena */
    size_t bytes;               /* handed out so far */
};

/* Zeroed memory aligned for any type, or NULL. Freed by arena_free only. size 0 gives a pointer. */
void *arena_alloc(struct arena *arena, size_t size);
/* arena_alloc of count * size, NULL also on overflow. */
void *arena_alloc_array(struct arena *arena, size_t count, size_t size);
/* A terminated copy of length bytes (which may hold NUL), or NULL. */
char *arena_copy_string(struct arena *arena, const char *string, size_t length);
/* Frees all blocks and empties the arena. */
void arena_free(struct arena *arena);

#endif
