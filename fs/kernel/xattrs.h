/* SPDX-License-Identifier: MIT
 * The extended attributes of files:
 *   user.unshard.state    the word for its state, as in the status
 *   user.unshard.shards   how many source files it is made of
 *   user.unshard.digest   the algorithms that these are checked by: "sha256"; "none" where nothing
 *                         is known of any
 *   user.unshard.errors   the lines of .unshard/errors that concern it; empty when all is well */
#ifndef FS_KERNEL_XATTRS_H
#define FS_KERNEL_XATTRS_H

#include <sys/types.h>

#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"

/* Who knows an attribute. */
enum xattr_need { XATTR_UNKNOWN, XATTR_OF_LAYOUT, XATTR_OF_ENGINE };
enum xattr_need xattr_need(const char *name);

/* The value of an attribute of a file, which is attached if it is one that the engine knows; not
 * terminated: *out is to be freed by the caller. Returns its length, -ENODATA when there is no such
 * attribute, -ENOMEM. Does not block. */
ssize_t xattr_value(const struct filesystem *filesystem, const struct inode *inode,
                    const char *name, char **out);

/* The zero-terminated names one after the other, and their length. */
const char *xattr_names(size_t *length);

#endif
