/* SPDX-License-Identifier: MIT
 *
 * Which chunks of one file are worth fetching though nobody has asked for them. That is derived
 * from what is known of each chunk: whoever fetches one takes it out, whoever learns that its pages
 * are not there, or not any more, puts it back. So a search has no place of its own that it could
 * lose, and nothing is fetched twice.
 *
 * Readers want what is not there; the plan wants of that what no reader has passed. What has failed
 * is wanted again at a later time; a file of which one chunk after the other fails rests as a
 * whole.
 *
 * Not thread-safe: the owner of the file has a lock. Nothing blocks.
 */
#ifndef ENGINE_WANTED_H
#define ENGINE_WANTED_H

#include <stdbool.h>
#include <stdint.h>

/* Who fetches: what the plan wants readers want too. */
enum wanted_by { WANTED_BY_READERS, WANTED_BY_PLAN, WANTED_BY_COUNT };

/* A bit for each chunk that is left out, and one for each word that is full of these. */
struct wanted_bits {
    uint64_t *out, *full; /* lazy arrays */
};

struct wanted_later {
    uint32_t index;
    enum wanted_by by;
    uint64_t at_ns;
};

struct wanted {
    struct wanted_bits bits[WANTED_BY_COUNT];
    uint32_t count;
    struct wanted_later *later; /* malloc'd when first needed */
    uint32_t later_count;
    uint64_t rest_until_ns; /* 0: does not rest */
};

/* Of `count` chunks, all wanted by both. 0 or -ENOMEM; then there is nothing to free. Costs memory
 * as chunks are taken out, not as there are chunks. */
int wanted_init(struct wanted *wanted, uint32_t count);
/* Of one that is zero: nothing. */
void wanted_free(struct wanted *wanted);

/* The chunk is wanted by nobody: it is there, or on its way. */
void wanted_take(struct wanted *wanted, uint32_t index);
/* The chunk is wanted: by readers alone, or by the plan too. */
void wanted_put(struct wanted *wanted, uint32_t index, enum wanted_by by);
/* The same, but not before a time; where too much is put off the file rests as long instead. */
void wanted_put_off(struct wanted *wanted, uint32_t index, enum wanted_by by, uint64_t at_ns);
/* Nothing of the file is wanted before a time; 0: it rests no more. */
void wanted_rest(struct wanted *wanted, uint64_t until_ns);
/* Makes wanted what is due by now. True when something has become so. */
bool wanted_tick(struct wanted *wanted, uint64_t now_ns);
/* Ends every wait at once. */
void wanted_wake(struct wanted *wanted);

/* The first chunk of [from, end) that is wanted now; `end` when there is none. */
uint32_t wanted_next(const struct wanted *wanted, enum wanted_by by, uint32_t from, uint32_t end);
/* Something will be wanted at a later time. */
bool wanted_waits(const struct wanted *wanted);
/* This chunk is wanted, now or when a wait ends. O(what waits). */
bool wanted_has(const struct wanted *wanted, enum wanted_by by, uint32_t index);

#endif
