/* SPDX-License-Identifier: MIT
 * The source of a mount: what is served, and under which numbers the kernel knows it. */
#ifndef FS_MOUNT_MOUNT_SOURCE_H
#define FS_MOUNT_MOUNT_SOURCE_H

#include "fs/mount/mount_run.h"

/* Opens run->source and looks at it; of what an earlier process had served the nodes are inherited.
 * Blocks on I/O. 0 or a negative errno with run->error. */
int mount_source_open(struct mount_run *run);
/* Once the inode table has an engine: the engine is told of the source itself. */
void mount_source_see(const struct filesystem *filesystem);

#endif
