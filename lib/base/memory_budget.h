/* SPDX-License-Identifier: MIT
 *
 * Memory that many may take from, and that all of them together have no more of: an account, not an
 * allocator. All functions are thread-safe; NULL is a budget without a limit. */
#ifndef BASE_MEMORY_BUDGET_H
#define BASE_MEMORY_BUDGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct memory_budget {
    size_t limit;
    atomic_size_t taken;
};

/* False: there is not so much left, and nothing was taken. */
bool memory_budget_take(struct memory_budget *budget, size_t bytes);
void memory_budget_give(struct memory_budget *budget, size_t bytes);

#endif
