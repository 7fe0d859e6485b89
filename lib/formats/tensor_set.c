/* SPDX-License-Identifier: MIT */
#include "formats/tensor_set.h"

#include <string.h>

int tensor_canonical_compare(const struct tensor *a, const struct tensor *b)
{
    uint32_t common = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order;

    if (a->dtype != b->dtype)
        return a->dtype > b->dtype ? -1 : 1;
    order = common > 0 ? memcmp(a->name, b->name, common) : 0;
    if (order != 0)
        return order;
    return (a->name_length > b->name_length) - (a->name_length < b->name_length);
}
