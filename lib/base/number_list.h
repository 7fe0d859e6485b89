/* SPDX-License-Identifier: MIT
 *
 * A few numbers, each once, in the order in which they were added. Not thread-safe. */
#ifndef BASE_NUMBER_LIST_H
#define BASE_NUMBER_LIST_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised is an empty list. */
struct number_list {
    uint32_t *numbers;
    uint32_t count, capacity;
};

/* Makes room, so that as many can be added without fail. 0 or -ENOMEM. */
int number_list_reserve(struct number_list *list, uint32_t more);
/* Adds a number that is not in the list. There must be room. */
void number_list_add(struct number_list *list, uint32_t number);
/* Does nothing when it is not in there. */
void number_list_remove(struct number_list *list, uint32_t number);
bool number_list_has(const struct number_list *list, uint32_t number);
void number_list_free(struct number_list *list);

#endif
