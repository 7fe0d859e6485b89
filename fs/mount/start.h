/* SPDX-License-Identifier: MIT
 *
 * How a mount was started, kept for the daemons that go on with it (keep.h): one record, written
 * when the mount stands, and never changed. A successor is started with the same arguments in the
 * same directory, so that it reads the same options from them; what those said of a place then may
 * say something else by now, so what was found is kept beside them. */
#ifndef FS_MOUNT_START_H
#define FS_MOUNT_START_H

#include <stdbool.h>
#include <stdint.h>

#include "unshard.h"

#define START_ARGUMENTS 512u

struct start {
    bool given;       /* somebody else has mounted */
    bool visible;     /* the mount is in our mount namespace */
    bool private;     /* it is of a command, in a namespace of its own */
    bool first_group; /* ... that knows the user's first group alone */
    bool terminal;    /* it ends with its terminal */
    bool bound;       /* no daemon outlives its supervisor: a service manager has the mount go on */
    uint32_t number;  /* of the source, where the arguments name several */
    uint32_t connection;
    const char *directory;  /* in which the arguments were given */
    const char *source;     /* canonical */
    const char *mountpoint; /* canonical, or as given where it cannot be seen */
    const char *shown;      /* the mount point for a person */
    unsigned argc;
    const char *argv[START_ARGUMENTS + 1]; /* the program's name first; NULL behind the last */
};

/* The strings are copied. 0 or a negative errno: -E2BIG, -ENOSPC. */
int start_keep(struct unshard_keep *keep, const struct start *start);
/* What an earlier process has kept; its strings lie in there. 0; -ENOENT: nothing; -EPROTO: it
 * makes no sense. */
int start_read(struct unshard_keep *keep, struct start *out);

#endif
