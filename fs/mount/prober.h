/* SPDX-License-Identifier: MIT
 * Proves that a new mount answers, and makes every view known to the kernel so that pages can be
 * stored before the first reader comes. Another process does it, since the daemon must not touch
 * its own mount: dying, it would wait for itself. */
#ifndef FS_MOUNT_PROBER_H
#define FS_MOUNT_PROBER_H

#include <sys/types.h>

#include "unshard.h"

struct prober {
    bool started, reaped;
    int process_fd; /* a pidfd: killing through it cannot hit another process */
    int go_fd, result_fd;
};

/* Where the prober finds the mount: at a path, or, in a namespace that the daemon is not in, by
 * descriptors, which the caller closes as soon as it is forked. */
struct prober_place {
    const char *path;   /* or NULL: */
    int root;           /* what is mounted, opened with O_PATH */
    int user_namespace; /* which may look into the mount; -1: this one may */
};

/* Forks the prober of a mount; it waits for prober_run. Only while the process has a single thread.
 * Checkpoint and path are used by the child. */
int prober_start(struct prober *prober, const struct unshard_checkpoint *checkpoint,
                 const struct prober_place *place, struct unshard_error *error);
/* Lets it look up every view and waits for the end, at most timeout_ms, and no longer than the
 * other end of waiting_fd is open (negative: none). 0, or what failed. */
int prober_run(struct prober *prober, int timeout_ms, int waiting_fd, struct unshard_error *error);
/* Kills it if it still runs: prober_run then returns. Any thread. */
void prober_kill(const struct prober *prober);
/* Waits for its end, which comes at once after a successful prober_run. It can be waiting for the
 * mount otherwise, so unmount first. */
void prober_reap(struct prober *prober);
/* Reaps it if need be and closes everything. No other thread may still use it. */
void prober_close(struct prober *prober);

#endif
