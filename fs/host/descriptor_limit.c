/* SPDX-License-Identifier: MIT */
#include "fs/host/descriptor_limit.h"

#include <stdbool.h>
#include <sys/resource.h>

static struct rlimit original;
static bool raised;

void descriptor_limit_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    original = limit;
    limit.rlim_cur = limit.rlim_max;
    raised = setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

void descriptor_limit_restore(void)
{
    if (raised)
        setrlimit(RLIMIT_NOFILE, &original);
    raised = false;
}
