/* SPDX-License-Identifier: MIT
 *
 * The supervisor: a small process that outlives the daemons of a mount, and has one follow the
 * other. It reads nothing of the source and nothing of the mount.
 *
 *   WAITING    no daemon has said HELLO: there may be no mount yet
 *   WATCHING   one serves, or is about to take over
 *   LEAVING    the daemon ends the connection: its end is the end of the mount
 *   REFUSING   there will be no daemon: whatever is asked of the mount is answered with EIO
 *
 *   WAITING -HELLO-> WATCHING -LEAVING-> LEAVING -its end-> detached, gone
 *   WAITING -its end-> gone
 *   WATCHING -its end-> WATCHING (the next generation is started)
 *            -its end, and too many before it; REFUSING-> REFUSING -all are gone-> detached, gone
 *            -its end, and the connection has ended-> detached, gone
 *
 * A daemon that dies before the mount has worked is followed by none: whoever wanted the mount is
 * told that there is none. Too many: three daemons that crashed or could not take over within a
 * minute; or ten in a row that were killed before they served. A daemon that was killed is no sign
 * that the next one will be.
 *
 * An upgrade (upgrade.h): told of another program, it has that follow the daemon, which ends; and
 * when that one serves it becomes the same program, in this process, which others may wait for. If
 * the program has not served the next daemon is of the old one.
 *
 * Invariants: it holds the device while it is WATCHING or REFUSING, and not when LEAVING, when the
 * kernel must see that the daemon closes it. At most LIFE_GENERATIONS daemons may not be quite gone
 * at once: the next one is started when an older one is.
 *
 * In the foreground it is the process that was started, and ends as its last daemon has; else it is
 * a child of the first daemon, which nobody waits for.
 *
 * A service manager that keeps descriptors has those that it holds as well (kept_mount.h), so that
 * the process that is started when all were killed begins as WATCHING, with the next generation. */
#ifndef FS_MOUNT_SUPERVISOR_H
#define FS_MOUNT_SUPERVISOR_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs/mount/succession.h"

/* To the end of the mount, or of the daemon where there will be none. talk: of succession_pair, the
 * supervisor's from here on. daemon: a child of this process, or 0: it is the one that says HELLO.
 * keeps: a service manager keeps what it is left. Returns the exit status. In a process with one
 * thread. */
int supervisor_run(int talk, pid_t daemon, bool keeps);
/* The same for a mount whose processes were all killed, with what a service manager has kept of
 * them, which is the supervisor's from here on. */
int supervisor_resume(const int handed[HANDED_COUNT]);

/* In the first daemon, or in one whose supervisor has died: starts one, as a child. Its end of the
 * socket in *talk, which is the caller's. The process, or a negative errno. */
pid_t supervisor_start(int *talk);
/* Whether this process was started by that; then it ends as one, with the status in *status. */
bool supervisor_is_this(int *status);

#endif
