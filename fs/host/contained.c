/* SPDX-License-Identifier: MIT */
#include "fs/host/contained.h"

#include <stdio.h>
#include <string.h>

/* "NSpid:" and its number in our namespace, then one in each that is below. */
static bool has_several_numbers(const char *line)
{
    const char *first = line + strcspn(line, "0123456789");
    const char *behind = first + strspn(first, "0123456789");
    return strcspn(behind, "0123456789") != strlen(behind);
}

bool process_is_contained(pid_t process)
{
    char path[40], line[256];
    bool contained = false;
    if (process <= 0)
        return true;
    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    FILE *status = fopen(path, "re");
    if (!status)
        return true;
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "NSpid:", 6) == 0)
            contained = has_several_numbers(line + 6);
    fclose(status);
    return contained;
}
