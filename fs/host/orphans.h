/* SPDX-License-Identifier: MIT
 * Processes that serve whatever takes the place of this one by exec, and are none of its children:
 * a program that waits for all of its children would wait for them for ever.
 *
 *   this process ─┬─ keeper ─┬─ one orphan, with a socket to this process
 *                 │          └─ another
 *                 └─ ... exec
 *
 * While the keeper lives, it and they are killed when this process ends, whichever way. When it is
 * released it ends, and they belong to nobody. */
#ifndef FS_HOST_ORPHANS_H
#define FS_HOST_ORPHANS_H

#include <sys/types.h>

struct orphans {
    pid_t keeper;
    int hold;   /* the keeper ends when it is closed */
    int *links; /* of each orphan: our end of its socket; owned */
    unsigned count;
};

/* Starts `count` of them. Each becomes a session of its own without any inherited descriptor but
 * the standard ones and its end of the socket, runs work(context, number, link), and exits with
 * what that returns. Until they undo it (daemon_outlives_parent) they are killed with the keeper.
 * Only while the process has a single thread. 0 or a negative errno, then there are none. */
int orphans_start(struct orphans *orphans, unsigned count,
                  int (*work)(void *context, unsigned number, int link), void *context);
/* The keeper ends and is reaped, the sockets are closed: those that have undone it are on their own
 * from now on, the others are killed. Does nothing when there are none. */
void orphans_release(struct orphans *orphans);

#endif
