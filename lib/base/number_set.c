/* SPDX-License-Identifier: MIT */
#include "base/number_set.h"

#include <errno.h>
#include <stdlib.h>

int number_set_init(struct number_set *set, uint32_t bound)
{
    *set = (struct number_set){.numbers = calloc((size_t)bound + 1, sizeof *set->numbers),
                               .places = calloc((size_t)bound + 1, sizeof *set->places)};
    if (set->numbers != NULL && set->places != NULL)
        return 0;
    number_set_free(set);
    return -ENOMEM;
}

void number_set_free(struct number_set *set)
{
    free(set->numbers);
    free(set->places);
    *set = (struct number_set){0};
}

bool number_set_has(const struct number_set *set, uint32_t number)
{
    return set->places[number] != 0;
}

void number_set_add(struct number_set *set, uint32_t number)
{
    if (set->places[number] != 0)
        return;
    set->numbers[set->count++] = number;
    set->places[number] = set->count;
}

void number_set_remove(struct number_set *set, uint32_t number)
{
    uint32_t place = set->places[number];
    if (place == 0)
        return;
    uint32_t last = set->numbers[--set->count];
    set->numbers[place - 1] = last;
    set->places[last] = place;
    set->places[number] = 0;
}
