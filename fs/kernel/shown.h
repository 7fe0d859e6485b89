/* SPDX-License-Identifier: MIT
 * The files that a layout shows, in the order of their views: that in which a loader wants them. */
#ifndef FS_KERNEL_SHOWN_H
#define FS_KERNEL_SHOWN_H

#include "unshard.h"

/* A file, by its path below the source and its place; both are the caller's of found only during
 * the call. Other than 0 ends it. */
typedef int (*shown_found)(void *context, const char *path, const struct unshard_place *place);

/* Calls found for each file of a layout. 0, -ENOMEM, or what found returned. */
int shown_files(struct unshard_checkpoint *layout, shown_found found, void *context);
/* For those that are listed and show a component. */
int shown_of_component(struct unshard_checkpoint *layout, int32_t component, shown_found found,
                       void *context);

#endif
