/* SPDX-License-Identifier: MIT */
#include "tree/notes.h"

#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct note_list *notes)
{
    if (notes->count < notes->capacity)
        return true;
    uint32_t capacity = notes->capacity == 0 ? 8 : notes->capacity * 2;
    const char **grown = realloc(notes->items, capacity * sizeof *grown);
    if (grown == NULL)
        return false;
    notes->items = grown;
    notes->capacity = capacity;
    return true;
}

void note_add(struct note_list *notes, struct arena *arena, const char *format, ...)
{
    char line[768], printable[768];
    va_list arguments;
    if (notes->count > NOTES_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    const char *text = notes->count == NOTES_MAX
                           ? "There are more notes than are shown."
                           : error_printable(printable, sizeof printable, line, strlen(line));
    if (!reserve(notes) ||
        (notes->items[notes->count] = arena_copy_string(arena, text, strlen(text))) == NULL) {
        notes->failed = true;
        return;
    }
    notes->count++;
}

int notes_take(struct note_list *notes, struct arena *arena, const char ***items, uint32_t *count)
{
    const char **copy = arena_alloc_array(arena, notes->count, sizeof *copy);
    if (copy == NULL || notes->failed)
        return -ENOMEM;
    if (notes->count > 0)
        memcpy(copy, notes->items, notes->count * sizeof *copy);
    *items = copy;
    *count = notes->count;
    notes_free(notes);
    return 0;
}

void notes_free(struct note_list *notes)
{
    free(notes->items);
    *notes = (struct note_list){0};
}
