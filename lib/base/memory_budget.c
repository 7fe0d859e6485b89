/* SPDX-License-Identifier: MIT */
#include "base/memory_budget.h"

bool memory_budget_take(struct memory_budget *budget, size_t bytes)
{
    if (budget == NULL)
        return true;
    size_t taken = atomic_load(&budget->taken);
    do
        if (bytes > budget->limit || taken > budget->limit - bytes)
            return false;
    while (!atomic_compare_exchange_weak(&budget->taken, &taken, taken + bytes));
    return true;
}

void memory_budget_give(struct memory_budget *budget, size_t bytes)
{
    if (budget != NULL)
        atomic_fetch_sub(&budget->taken, bytes);
}
