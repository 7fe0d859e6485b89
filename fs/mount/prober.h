/* SPDX-License-Identifier: MIT
 * Proves that a new mount answers, and has the kernel look files up, so that it has inodes which
 * pages can be stored into before a reader comes. Another process does it, since the daemon must
 * not touch its own mount: dying, it would wait for itself. Where files are prefetched that appear
 * later, or behind one that is opened, it stays as long as the daemon; it holds nothing of the
 * mount meanwhile, so that nobody finds that busy, and ends with the daemon, whichever way that
 * does. */
#ifndef FS_MOUNT_PROBER_H
#define FS_MOUNT_PROBER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "unshard.h"

struct whole;

struct prober {
    bool started, reaped, stays;
    atomic_bool waits; /* for paths: prober_run has been */
    int process_fd;    /* a pidfd: killing through it cannot hit another process */
    int talk;          /* a socket: what is to be done, and that it was */
};

/* Where the prober finds the mount: at a path, or, in a namespace that the daemon is not in, by
 * descriptors, which the caller closes as soon as it is forked. */
struct prober_place {
    const char *path;   /* or NULL: */
    int root;           /* what is mounted, opened with O_PATH */
    int user_namespace; /* which may look into the mount; -1: this one may */
};

/* Forks the prober of a mount; it waits for prober_run. Only while the process has a single thread.
 * whole: the files that it then looks up; NULL: it only looks at the mount itself. stays: for
 * prober_look_up. whole and path are used by the child. */
int prober_start(struct prober *prober, const struct whole *whole, bool stays,
                 const struct prober_place *place, struct unshard_error *error);
/* Lets it look and waits for the end of that, at most timeout_ms, and no longer than the other end
 * of waiting_fd is open (negative: none). 0, or what failed. */
int prober_run(struct prober *prober, int timeout_ms, int waiting_fd, struct unshard_error *error);
/* Has a path below the mount looked up, by one that stays and after prober_run; does nothing else.
 * Waits until it has been, for ten seconds at most. One that takes longer is asked no more. One
 * thread at a time. */
void prober_look_up(struct prober *prober, const char *path);
/* Kills it if it still runs: prober_run and prober_look_up then return. Any thread. */
void prober_kill(const struct prober *prober);
/* Waits for its end, which comes at once after a successful prober_run if it does not stay. It can
 * be waiting for the mount otherwise, so unmount first. */
void prober_reap(struct prober *prober);
/* Reaps it if need be and closes everything. No other thread may still use it. */
void prober_close(struct prober *prober);

#endif
