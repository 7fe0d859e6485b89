/* SPDX-License-Identifier: MIT
 *
 * A set of numbers below a bound, for "those of many that something is to be done about": adding,
 * removing and asking cost the same however many there could be, and going through it costs as much
 * as it has. Not thread-safe. */
#ifndef BASE_NUMBER_SET_H
#define BASE_NUMBER_SET_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised is the empty set of no numbers. */
struct number_set {
    uint32_t *numbers; /* the members, `count` of them, in no order that means anything */
    uint32_t *places;  /* of each number: its place in `numbers` and one, or 0 */
    uint32_t count;
};

/* The empty set of numbers below `bound`. 0 or -ENOMEM; then there is nothing to free. */
int number_set_init(struct number_set *set, uint32_t bound);
void number_set_free(struct number_set *set);
/* The number is below the bound. Adding a member and removing another number do nothing. */
void number_set_add(struct number_set *set, uint32_t number);
/* The last member takes its place: who removes while going through the set goes from its end. */
void number_set_remove(struct number_set *set, uint32_t number);
bool number_set_has(const struct number_set *set, uint32_t number);

#endif
