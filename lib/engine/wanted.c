/* SPDX-License-Identifier: MIT */
#include "engine/wanted.h"

#include "base/lazy_array.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define BITS 64U
/* More chunks than these are not put off one by one. */
#define MOST_LATER 64U

static size_t words_for(uint32_t count)
{
    return count / BITS + 1U;
}

static size_t full_words_for(uint32_t count)
{
    return words_for(count) / BITS + 1U;
}

int wanted_init(struct wanted *wanted, uint32_t count)
{
    bool made = true;
    *wanted = (struct wanted){.count = count};
    for (unsigned by = 0; by < WANTED_BY_COUNT; by++) {
        struct wanted_bits *bits = &wanted->bits[by];
        bits->out = lazy_array_new(words_for(count), sizeof *bits->out);
        bits->full = lazy_array_new(full_words_for(count), sizeof *bits->full);
        made = made && bits->out != NULL && bits->full != NULL;
    }
    if (!made)
        wanted_free(wanted);
    return made ? 0 : -ENOMEM;
}

void wanted_free(struct wanted *wanted)
{
    for (unsigned by = 0; by < WANTED_BY_COUNT; by++) {
        struct wanted_bits *bits = &wanted->bits[by];
        lazy_array_free(bits->out, words_for(wanted->count), sizeof *bits->out);
        lazy_array_free(bits->full, full_words_for(wanted->count), sizeof *bits->full);
    }
    free(wanted->later);
    *wanted = (struct wanted){0};
}

static void leave_out(struct wanted_bits *bits, uint32_t index)
{
    uint32_t word = index / BITS;
    bits->out[word] |= UINT64_C(1) << index % BITS;
    if (bits->out[word] == UINT64_MAX)
        bits->full[word / BITS] |= UINT64_C(1) << word % BITS;
}

static bool is_out(const struct wanted_bits *bits, uint32_t index)
{
    return (bits->out[index / BITS] >> index % BITS & 1) != 0;
}

/* Writes to no word that has nothing of it: those cost nothing. */
static void take_in(struct wanted_bits *bits, uint32_t index)
{
    uint32_t word = index / BITS;
    if (!is_out(bits, index))
        return;
    bits->out[word] &= ~(UINT64_C(1) << index % BITS);
    if ((bits->full[word / BITS] >> word % BITS & 1) != 0)
        bits->full[word / BITS] &= ~(UINT64_C(1) << word % BITS);
}

static void forget_later(struct wanted *wanted, uint32_t index)
{
    for (uint32_t i = 0; i < wanted->later_count; i++)
        if (wanted->later[i].index == index) {
            wanted->later[i] = wanted->later[--wanted->later_count];
            return;
        }
}

void wanted_take(struct wanted *wanted, uint32_t index)
{
    forget_later(wanted, index);
    for (unsigned by = 0; by < WANTED_BY_COUNT; by++)
        leave_out(&wanted->bits[by], index);
}

void wanted_put(struct wanted *wanted, uint32_t index, enum wanted_by by)
{
    forget_later(wanted, index);
    take_in(&wanted->bits[WANTED_BY_READERS], index);
    if (by == WANTED_BY_PLAN)
        take_in(&wanted->bits[WANTED_BY_PLAN], index);
    else
        leave_out(&wanted->bits[WANTED_BY_PLAN], index);
}

void wanted_put_off(struct wanted *wanted, uint32_t index, enum wanted_by by, uint64_t at_ns)
{
    wanted_take(wanted, index);
    if (wanted->later == NULL)
        wanted->later = malloc(MOST_LATER * sizeof *wanted->later);
    if (wanted->later == NULL || wanted->later_count == MOST_LATER) {
        wanted_put(wanted, index, by);
        wanted_rest(wanted, at_ns);
        return;
    }
    wanted->later[wanted->later_count++] = (struct wanted_later){index, by, at_ns};
}

void wanted_rest(struct wanted *wanted, uint64_t until_ns)
{
    if (until_ns == 0 || until_ns > wanted->rest_until_ns)
        wanted->rest_until_ns = until_ns;
}

bool wanted_tick(struct wanted *wanted, uint64_t now_ns)
{
    bool due = wanted->rest_until_ns != 0 && wanted->rest_until_ns <= now_ns;
    if (due)
        wanted->rest_until_ns = 0;
    for (uint32_t i = 0; i < wanted->later_count;) {
        struct wanted_later later = wanted->later[i];
        if (later.at_ns > now_ns) {
            i++;
            continue;
        }
        wanted_put(wanted, later.index, later.by); /* puts another one at i */
        due = true;
    }
    return due;
}

void wanted_wake(struct wanted *wanted)
{
    wanted_tick(wanted, UINT64_MAX);
}

/* The first word from `word` on, before `end`, in which something is wanted. */
static uint32_t next_word(const struct wanted_bits *bits, uint32_t word, uint32_t end)
{
    while (word < end) {
        uint64_t rest = ~bits->full[word / BITS] >> word % BITS;
        if (rest != 0)
            return word + (uint32_t)__builtin_ctzll(rest);
        word = (word / BITS + 1) * BITS;
    }
    return end;
}

uint32_t wanted_next(const struct wanted *wanted, enum wanted_by by, uint32_t from, uint32_t end)
{
    const struct wanted_bits *bits = &wanted->bits[by];
    if (wanted->rest_until_ns != 0 || from >= end)
        return end;
    uint32_t last = (end - 1) / BITS;
    uint64_t first = ~bits->out[from / BITS] >> from % BITS;
    uint64_t found = from;
    if (first == 0) {
        uint32_t word = next_word(bits, from / BITS + 1, last + 1);
        if (word > last)
            return end;
        first = ~bits->out[word];
        found = (uint64_t)word * BITS;
    }
    found += (uint32_t)__builtin_ctzll(first);
    return found < end ? (uint32_t)found : end;
}

bool wanted_waits(const struct wanted *wanted)
{
    return wanted->later_count > 0 || wanted->rest_until_ns != 0;
}

bool wanted_has(const struct wanted *wanted, enum wanted_by by, uint32_t index)
{
    for (uint32_t i = 0; i < wanted->later_count; i++)
        if (wanted->later[i].index == index)
            return by == WANTED_BY_READERS || wanted->later[i].by == WANTED_BY_PLAN;
    return !is_out(&wanted->bits[by], index);
}
