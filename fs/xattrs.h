/* SPDX-License-Identifier: MIT
 * The extended attributes of views: user.unshard.state, .shards and .digest. */
#ifndef FS_XATTRS_H
#define FS_XATTRS_H

#include <sys/types.h>

#include "fs/filesystem.h"

/* Writes the value of an attribute (not terminated) into out. Returns its length, -ENODATA when the
 * view has no such attribute. Does not block. */
ssize_t xattr_value(const struct filesystem *filesystem, uint32_t view, const char *name,
                    char out[64]);

/* The zero-terminated names one after the other, and their length. */
const char *xattr_names(size_t *length);

#endif
