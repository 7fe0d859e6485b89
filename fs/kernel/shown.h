/* SPDX-License-Identifier: MIT
 * The files that a layout shows, in the order of their views: that in which a loader wants them. */
#ifndef FS_KERNEL_SHOWN_H
#define FS_KERNEL_SHOWN_H

#include "fs/kernel/filesystem.h"
#include "unshard.h"

/* A file, by its path below the source and its place; both are the caller's of found only during
 * the call. Other than 0 ends it. */
typedef int (*shown_found)(void *context, const char *path, const struct unshard_place *place);

/* Calls found for each file of a layout. 0, -ENOMEM, or what found returned. */
int shown_files(struct unshard_checkpoint *layout, shown_found found, void *context);
/* For those that are listed and show a component. */
int shown_of_component(struct unshard_checkpoint *layout, int32_t component, shown_found found,
                       void *context);

/* Has somebody else look a file up, so that the kernel has an inode to store pages into: it is made
 * to forget what it may have had by that name before. For a thread of the room where requests wait:
 * blocks on who looks names of the directory up. */
void shown_look_up(const struct filesystem *filesystem, const char *path);

#endif
