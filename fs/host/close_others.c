/* SPDX-License-Identifier: MIT */
#include "fs/host/close_others.h"

#include <unistd.h>

static unsigned close_up_to(unsigned from, int kept)
{
    if (kept < 0 || (unsigned)kept < from)
        return from;
    if ((unsigned)kept > from)
        close_range(from, (unsigned)kept - 1, 0);
    return (unsigned)kept + 1;
}

void close_others(unsigned from, int first, int second)
{
    from = close_up_to(from, first < second ? first : second);
    from = close_up_to(from, first < second ? second : first);
    close_range(from, ~0U, 0);
}
