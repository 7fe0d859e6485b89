/* SPDX-License-Identifier: MIT
 *
 * What of this machine stands in the way of a mount, or makes it slower than it could be. Each
 * check looks at one thing, changes nothing but for what it takes away again, and adds what it
 * found. */
#ifndef FS_CLI_DOCTOR_H
#define FS_CLI_DOCTOR_H

#include <stddef.h>

enum finding_level {
    FINDING_GOOD,   /* nothing to do */
    FINDING_NOTE,   /* works, and could be better, or will not do for some */
    FINDING_PROBLEM /* a mount, or what the user asks of it, will not work */
};

#define FINDING_CAPACITY 320
#define MOST_FINDINGS 24

struct finding {
    const char *name; /* static, for scripts: "fuse-device" */
    enum finding_level level;
    char found[FINDING_CAPACITY];  /* for a person; no control characters */
    char advice[FINDING_CAPACITY]; /* what to do; empty when there is nothing */
};

struct doctor {
    struct finding findings[MOST_FINDINGS];
    size_t count;
};

/* Adds a finding; advice may be NULL. What does not fit is cut. */
__attribute__((format(printf, 5, 6))) void doctor_add(struct doctor *doctor, const char *name,
                                                      enum finding_level level, const char *advice,
                                                      const char *format, ...);

/* The machine and this user's rights on it. Blocks for as long as opening /dev/fuse does. */
void doctor_check_machine(struct doctor *doctor);
/* A directory that is to be mounted: reads its headers, so it blocks on its storage. */
void doctor_check_source(struct doctor *doctor, const char *path);
/* A mount of unshard; path as the table of mounts has it. Blocks for some seconds at most. */
void doctor_check_mount(struct doctor *doctor, const char *path);

#endif
