/* SPDX-License-Identifier: MIT */
#include "engine/chunk_runs.h"

#include <stdlib.h>

/* The first run that begins behind index; count when none does. */
static uint32_t behind(const struct chunk_runs *runs, uint32_t index)
{
    uint32_t low = 0, high = runs->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (runs->runs[middle].first <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool touches(const struct chunk_run *run, uint32_t first, uint32_t last)
{
    return first <= (uint64_t)run->last + 1 && (uint64_t)last + 1 >= run->first;
}

static void widen(struct chunk_run *run, uint32_t first, uint32_t last)
{
    run->first = first < run->first ? first : run->first;
    run->last = last > run->last ? last : run->last;
}

bool chunk_runs_add(struct chunk_runs *runs, uint32_t first, uint32_t last)
{
    /* Most come one after the other. */
    if (runs->count > 0 && touches(&runs->runs[runs->count - 1], first, last)) {
        widen(&runs->runs[runs->count - 1], first, last);
        return true;
    }
    if (runs->count == runs->capacity) {
        uint32_t capacity = runs->capacity == 0 ? 1 : runs->capacity * 2;
        struct chunk_run *grown = reallocarray(runs->runs, capacity, sizeof *grown);
        if (grown == NULL)
            return false;
        runs->runs = grown;
        runs->capacity = capacity;
    }
    runs->runs[runs->count++] = (struct chunk_run){first, last};
    return true;
}

static int compare_runs(const void *left, const void *right)
{
    const struct chunk_run *a = left, *b = right;
    return (a->first > b->first) - (a->first < b->first);
}

void chunk_runs_settle(struct chunk_runs *runs)
{
    uint32_t kept = 0;
    if (runs->count == 0)
        return;
    qsort(runs->runs, runs->count, sizeof *runs->runs, compare_runs);
    for (uint32_t i = 1; i < runs->count; i++) {
        if (touches(&runs->runs[kept], runs->runs[i].first, runs->runs[i].last))
            widen(&runs->runs[kept], runs->runs[i].first, runs->runs[i].last);
        else
            runs->runs[++kept] = runs->runs[i];
    }
    runs->count = kept + 1;
    struct chunk_run *fitting = reallocarray(runs->runs, runs->count, sizeof *fitting);
    if (fitting != NULL) {
        runs->runs = fitting;
        runs->capacity = runs->count;
    }
}

bool chunk_runs_have(const struct chunk_runs *runs, uint32_t index)
{
    uint32_t next = behind(runs, index);
    return next > 0 && runs->runs[next - 1].last >= index;
}

uint32_t chunk_runs_total(const struct chunk_runs *runs)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < runs->count; i++)
        total += runs->runs[i].last - runs->runs[i].first + 1;
    return total;
}

void chunk_runs_free(struct chunk_runs *runs)
{
    free(runs->runs);
    *runs = (struct chunk_runs){0};
}
