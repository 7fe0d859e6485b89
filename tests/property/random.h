/* SPDX-License-Identifier: MIT
 *
 * A small seeded generator (splitmix64) for property tests. The seed comes from UNSHARD_TEST_SEED,
 * or is fixed, so that a run can be repeated; a failing test prints it. */
#ifndef TESTS_PROPERTY_RANDOM_H
#define TESTS_PROPERTY_RANDOM_H

#include <stdint.h>
#include <stdlib.h>

struct random_state {
    uint64_t state;
};

static inline uint64_t random_next(struct random_state *random)
{
    uint64_t value = random->state += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* A number below limit; limit > 0. */
static inline uint64_t random_below(struct random_state *random, uint64_t limit)
{
    return random_next(random) % limit;
}

/* Sizes as they hurt: often 0, 1 or about a page, seldom large. */
static inline uint64_t random_length(struct random_state *random)
{
    switch (random_below(random, 8)) {
    case 0:
        return 0;
    case 1:
    case 2:
        return 1;
    case 3:
        return 4095 + random_below(random, 3);
    case 4:
        return random_below(random, 2000);
    default:
        return random_below(random, 33);
    }
}

static inline uint64_t random_seed(void)
{
    const char *text = getenv("UNSHARD_TEST_SEED");

    return text != NULL ? strtoull(text, NULL, 0) : UINT64_C(20240229);
}

#endif
