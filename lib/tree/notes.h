/* SPDX-License-Identifier: MIT
 *
 * A growing list of short sentences for the status. */
#ifndef TREE_NOTES_H
#define TREE_NOTES_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

/* More than this is of no use to a reader; the last one then says that there were more. */
#define NOTES_MAX 100U

struct note_list {
    const char **items; /* malloc'd; the strings live in the arena given to note_add */
    uint32_t count, capacity;
    bool failed; /* memory was short */
};

void note_add(struct note_list *notes, struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Moves the array into the arena and empties the list. 0 or -ENOMEM, also when an add failed. */
int notes_take(struct note_list *notes, struct arena *arena, const char ***items, uint32_t *count);
void notes_free(struct note_list *notes);

#endif
