/* SPDX-License-Identifier: MIT
 * The death monitor: a small process that outlives the daemon's death.
 *
 * A daemon that is killed while a store waits for one of its own READs never finishes dying, and
 * readers hang for ever (fs/kernel/README.md 1.5). The monitor is told by the kernel when the
 * thread that forked it ends, which does happen. It then
 * 1. aborts the connection, through fusectl or as root, and takes the mount away; or, where it may
 *    not,
 * 2. refuses all requests until the daemon is gone (refuser.h), closes the descriptor that it holds
 *    of the connection, and takes the mount away once that is dead; a mount that is not is left.
 * It holds nothing else of the daemon's and opens nothing of the mount.
 *
 * Holding the descriptor keeps the kernel from ending the connection when the daemon closes it. So
 * a daemon that is about to do that has the monitor let go of it first (monitor_let_go). */
#ifndef FS_MOUNT_MONITOR_H
#define FS_MOUNT_MONITOR_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "unshard.h"

struct monitor {
    const char *path; /* constant after monitor_start, as is connection */
    unsigned connection;
    int device; /* of /dev/fuse; -1: it has been let go of */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pid_t process; /* 0: none; of mutex once the keeper runs, as is stopping */
    bool stopping;
    pthread_t keeper;
    bool keeper_runs;
};

/* Forks the monitor of the mount at `path` (canonical, not copied) with this connection number and
 * descriptor, which stays the caller's. */
int monitor_start(struct monitor *monitor, const char *path, unsigned connection, int device,
                  struct unshard_error *error);
/* Starts the thread that watches over the monitor: one that ends is logged and replaced. 0 or a
 * negative errno. */
int monitor_keep(struct monitor *monitor);
/* Replaces the monitor by one without the descriptor, and does not watch over that. Before the
 * connection is closed. Does not block for long. */
void monitor_let_go(struct monitor *monitor);
/* Ends and reaps it without its doing anything. Does not block for long. */
void monitor_stop(struct monitor *monitor);

#endif
