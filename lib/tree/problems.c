/* SPDX-License-Identifier: MIT */
#include "tree/problems.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void problem_add(struct problem_list *problems, const struct unshard_error *error)
{
    if (problems->count >= PROBLEMS_MAX)
        return;
    if (problems->count == problems->capacity) {
        uint32_t capacity = problems->capacity == 0 ? 4 : problems->capacity * 2;
        struct unshard_error *grown = reallocarray(problems->items, capacity, sizeof *grown);
        if (grown == NULL) {
            problems->failed = true;
            return;
        }
        problems->items = grown;
        problems->capacity = capacity;
    }
    struct unshard_error *item = &problems->items[problems->count++];
    *item = *error;
    if (problems->count == PROBLEMS_MAX)
        error_set(item, "more-problems", 0, "there are more problems than are shown");
    error_stamp(item);
}

int problems_take(struct problem_list *problems, struct arena *arena, struct unshard_error **items,
                  uint32_t *count)
{
    struct unshard_error *copy = arena_alloc_array(arena, problems->count, sizeof *copy);
    if (copy == NULL || problems->failed)
        return -ENOMEM;
    if (problems->count > 0)
        memcpy(copy, problems->items, problems->count * sizeof *copy);
    *items = copy;
    *count = problems->count;
    problems_free(problems);
    return 0;
}

void problems_free(struct problem_list *problems)
{
    free(problems->items);
    *problems = (struct problem_list){0};
}
