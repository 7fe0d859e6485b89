/* SPDX-License-Identifier: MIT
 * The extended attributes of views:
 *   user.unshard.state    the word for its state, as in the status
 *   user.unshard.shards   how many source files it is made of
 *   user.unshard.digest   the algorithms that these are checked by: "sha256"; "none" where nothing
 *                         is known of any
 *   user.unshard.errors   the lines of .unshard/errors that concern it; empty when all is well */
#ifndef FS_KERNEL_XATTRS_H
#define FS_KERNEL_XATTRS_H

#include <sys/types.h>

#include "fs/kernel/filesystem.h"

/* The value of an attribute, not terminated: *out is to be freed by the caller. Returns its length,
 * -ENODATA when the view has no such attribute, -ENOMEM. Does not block. */
ssize_t xattr_value(const struct filesystem *filesystem, uint32_t view, const char *name,
                    char **out);

/* The zero-terminated names one after the other, and their length. */
const char *xattr_names(size_t *length);

#endif
