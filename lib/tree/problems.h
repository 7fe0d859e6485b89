/* SPDX-License-Identifier: MIT
 *
 * A growing list of what is wrong with a checkpoint as a whole. */
#ifndef TREE_PROBLEMS_H
#define TREE_PROBLEMS_H

#include "base/arena.h"
#include "unshard.h"

#define PROBLEMS_MAX 100U

struct problem_list {
    struct unshard_error *items; /* malloc'd */
    uint32_t count, capacity;
    bool failed; /* memory was short */
};

/* Adds a problem, stamped with the time when it has none. The last one of PROBLEMS_MAX says that
 * there were more. */
void problem_add(struct problem_list *problems, const struct unshard_error *error);
/* Moves the array into the arena and empties the list. 0 or -ENOMEM, also when an add failed. */
int problems_take(struct problem_list *problems, struct arena *arena, struct unshard_error **items,
                  uint32_t *count);
void problems_free(struct problem_list *problems);

#endif
