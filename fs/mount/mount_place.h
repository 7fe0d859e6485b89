/* SPDX-License-Identifier: MIT
 * Where a mount is: the directory that it is to cover, or a mount that somebody else has made. */
#ifndef FS_MOUNT_MOUNT_PLACE_H
#define FS_MOUNT_MOUNT_PLACE_H

#include "fs/mount/mount_run.h"

/* Finds source and place from the options; claims the latter. Blocks on I/O. 0 or a negative errno
 * with run->error. */
int mount_place_resolve(struct mount_run *run);
/* Which connection the mount that was just made is, and whether it is alone there; the claim is let
 * go of. 0 or a negative errno with run->error. */
int mount_place_find(struct mount_run *run);
/* What the operations know of it, of a mount that was there before. */
void mount_place_set(struct mount_run *run);
/* What we hold of a command's mount keeps that from ending with the command. */
void mount_place_let_go(struct mount_run *run);
/* Where it is mounted, for a person. */
const char *mount_place_shown(const struct mount_run *run);

#endif
