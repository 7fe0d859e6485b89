/* SPDX-License-Identifier: MIT */
#include "fs/close_others.h"

#include <unistd.h>

void close_others(unsigned from, int first, int second)
{
    unsigned low = (unsigned)(first < second ? first : second);
    unsigned high = (unsigned)(first < second ? second : first);
    if (low > from)
        close_range(from, low - 1, 0);
    if (high - low > 1)
        close_range(low + 1, high - 1, 0);
    close_range(high + 1, ~0U, 0);
}
