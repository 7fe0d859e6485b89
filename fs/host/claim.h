/* SPDX-License-Identifier: MIT
 *
 * One `unshard mount` of a mount point at a time: a lock (flock(2)) on the directory below the
 * mount, from before a dead mount is looked for until the new one stands. It ends with the process
 * whatever ends that, and leaves no file. */
#ifndef FS_HOST_CLAIM_H
#define FS_HOST_CLAIM_H

#include "unshard.h"

/* Claims the directory at `path`, canonical, on which no unshard mount lies. *fd: the claim, for
 * claim_release; -1 where the directory cannot be locked (not readable, or on a file system without
 * locks): mountpoint_check_alone then finds who came later. -EBUSY with *error filled: somebody
 * else is at it, or has just mounted. Does not wait, and asks no unshard mount anything. */
int claim_take(const char *path, int *fd, struct unshard_error *error);
/* -1 is allowed. */
void claim_release(int fd);

#endif
