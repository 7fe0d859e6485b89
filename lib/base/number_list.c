/* SPDX-License-Identifier: MIT */
#include "base/number_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int number_list_reserve(struct number_list *list, uint32_t more)
{
    if (list->capacity - list->count >= more)
        return 0;
    uint32_t capacity = list->count + more;
    capacity = capacity < 2 * list->capacity ? 2 * list->capacity : capacity;
    uint32_t *grown = reallocarray(list->numbers, capacity, sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    list->numbers = grown;
    list->capacity = capacity;
    return 0;
}

void number_list_add(struct number_list *list, uint32_t number)
{
    list->numbers[list->count++] = number;
}

static uint32_t place_of(const struct number_list *list, uint32_t number)
{
    uint32_t place = 0;
    while (place < list->count && list->numbers[place] != number)
        place++;
    return place;
}

bool number_list_has(const struct number_list *list, uint32_t number)
{
    return place_of(list, number) < list->count;
}

void number_list_remove(struct number_list *list, uint32_t number)
{
    uint32_t place = place_of(list, number);
    if (place == list->count)
        return;
    list->count--;
    memmove(list->numbers + place, list->numbers + place + 1,
            (list->count - place) * sizeof *list->numbers);
}

void number_list_free(struct number_list *list)
{
    free(list->numbers);
    *list = (struct number_list){0};
}
