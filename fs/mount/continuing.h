/* SPDX-License-Identifier: MIT
 *
 * Going on with a mount that an earlier daemon has made and served. What that one knew and cannot
 * be found out again is in the keep (lib/keep/keep.h); the rest is derived anew, by the same code
 * as at the start of a mount, from the same options and the same directory. In the order of what
 * happens:
 *
 *   the daemon says that it lives            before anything that could hang
 *   how the mount was started is read        instead of: resolving, claiming the place
 *   the source is laid out                   by its descriptor, since the mount may cover it
 *   nodes are inherited                      under the numbers that the kernel knows
 *   the session is adopted                   instead of: mounting
 *   the engine starts                        with what was seen of each file
 *   requests are answered                    those that come, and what was left (takeover.h)
 *
 * When any of that fails the mount is left as it is, for the next daemon or for the supervisor's
 * refusal. */
#ifndef FS_MOUNT_CONTINUING_H
#define FS_MOUNT_CONTINUING_H

#include "fs/mount/mount_run.h"

/* The first two. 0 or a negative errno with run->error. */
int continuing_begin(struct mount_run *run);
/* The session. 0 or a negative errno with run->error. */
int continuing_adopt(struct mount_run *run);
/* In another process than that, while the daemon serves (upgrade.h): does the first four, with a
 * copy of what is kept, and tells who waits at the other end of succession.talk whether that
 * succeeded. 0 or a negative errno. */
int continuing_rehearse(struct mount_run *run);
/* Tells the log and the supervisor why this process cannot go on, and that no other one can if that
 * is so, and ends it. */
_Noreturn void continuing_failed(struct mount_run *run);

#endif
