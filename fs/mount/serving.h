/* SPDX-License-Identifier: MIT
 * From a mount that is prepared to its end: the helpers, the threads, the loop, and taking it down.
 */
#ifndef FS_MOUNT_SERVING_H
#define FS_MOUNT_SERVING_H

#include "fs/mount/mount_run.h"

/* Mounts, or adopts the mount of an earlier process, and serves until it is unmounted or told to
 * end. To be called by the main thread while there is no other. When a mount cannot be gone on with
 * it is left as it is. 0 or a negative errno, mostly with run->error. */
int serving_run(struct mount_run *run);

#endif
