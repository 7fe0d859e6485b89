/* SPDX-License-Identifier: MIT
 *
 * What a service manager keeps of a mount, so that the mount outlives all of its processes: when
 * they are killed at once the kernel lets go of a connection only when nobody holds the descriptor.
 *
 *   "unshard"        the device of a mount that `unshard mount --prepare` has made and that nobody
 *                    has served yet. The process that the manager starts then serves it.
 *   "unshard-kept"   of one that was served: the device and the keep, left when a daemon is known
 *                    (supervisor.h). The process that the manager starts then becomes its
 *                    supervisor, and has a daemon go on with it.
 *
 * They have two names since a mount that was greeted must not be served as if it were new, and the
 * two have one since they are of use together alone: what they are tells which is which. A
 * descriptor of the source is with them only where the mount covers that: in a mount namespace that
 * ends with its processes it leads nowhere.
 *
 * Then no daemon outlives its supervisor, the process that the manager has started
 * (supervised_bind): it would be killed all the same, with what follows it, and while some are
 * being killed others would come.
 *
 * Invariants: the first is dropped before the others are left, and both whenever a supervisor ends
 * by itself: so what is kept is of the mount that was served last, and of one that nobody has
 * ended. What is kept and cannot be gone on with is dropped, which ends the connection: readers get
 * an error and do not wait for nobody. */
#ifndef FS_MOUNT_KEPT_MOUNT_H
#define FS_MOUNT_KEPT_MOUNT_H

#include <stdbool.h>

#include "fs/mount/succession.h"
#include "unshard.h"

struct kept_mount {
    int prepared;             /* -1: none */
    int handed[HANDED_COUNT]; /* -1: none */
    bool keeps;               /* the manager keeps what it is left */
};

/* What the manager gives this process, of connections that have not ended; the descriptors are the
 * caller's. Once, with a single thread. */
struct kept_mount kept_mount_take(void);
/* Whether something was served before. */
bool kept_mount_was_served(const struct kept_mount *kept);
/* Finds what is needed to go on with that as the mount of source at mountpoint, both as given by a
 * user. Blocks on I/O of the source, and for some seconds while a daemon of before is ending. 0, or
 * a negative errno with *error: it cannot be gone on with; -EBUSY: since another process does. */
int kept_mount_find(struct kept_mount *kept, const char *source, const char *mountpoint,
                    struct unshard_error *error);
/* Closes what was served before, here and in the manager. */
void kept_mount_drop(struct kept_mount *kept);

/* In the process that has mounted: for the one that is to serve. Returns when the manager has it. 0
 * or a negative errno with *error. */
int kept_mount_prepare(int device, struct unshard_error *error);
/* In the supervisor, when a daemon is known, and when there is none any more. */
void kept_mount_leave(const int handed[HANDED_COUNT], bool over_source);
void kept_mount_forget(void);

#endif
