/* SPDX-License-Identifier: MIT
 * A mount in the namespace of a command, served from outside of that: here the source is seen where
 * it always was, whatever the command's mount covers; and since nobody but the command and those
 * that it starts is in the namespace, the kernel ends mount and connection with the last of them.
 */
#ifndef FS_MOUNT_PRIVATE_MOUNT_H
#define FS_MOUNT_PRIVATE_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/cli/options.h"

struct private_view {
    const char *path; /* where the command sees it; absolute, valid as long as the process */
    uint32_t number;  /* of the source among those of the command line */
    int argc;         /* that command line */
    char **argv;
};

/* What the command sends through its link once it has mounted, with three descriptors: the
 * connection's of /dev/fuse, what is mounted (O_PATH), and its user namespace if that is another.
 */
struct private_mount {
    unsigned connection;
    bool first_group_alone; /* the namespace knows no other group of this user */
};

/* Serves such a mount to its end: waits for the above, answers by daemon_ready or daemon_failed.
 * SIGTERM and SIGINT do not end it, only its mount's end does. options->source is absolute; they
 * are freed. Returns the exit status of the process, which has a single thread and a session of its
 * own. */
int mount_privately(struct mount_options *options, const struct private_view *view, int link);
/* Whether this process was started to go on with a mount of an earlier one: then mount_privately
 * does, without a link, and knows the rest. */
bool mount_goes_on(void);

#endif
