/* SPDX-License-Identifier: MIT
 *
 * Which mounts this process sees (/proc/self/mountinfo). Never touches a mount itself, so that a
 * dead or hanging one can be looked up. */
#ifndef FS_MOUNT_TABLE_H
#define FS_MOUNT_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#define MOUNT_TYPE_CAPACITY 64

/* The absolute path of a mount point: resolves the directory above it, not the last name, since
 * looking at a dead mount fails. The caller frees it; NULL with errno. */
char *mount_table_resolve(const char *path);
/* The type of the topmost mount at exactly `path`, such as "fuse.unshard". type holds
 * MOUNT_TYPE_CAPACITY bytes. 0, -ENOENT when nothing is mounted there, or the errno of reading. */
int mount_table_type(const char *path, char *type);
/* The same from a stream in the format of mountinfo. */
int mount_table_type_from(FILE *stream, const char *path, char *type);
/* Calls `each` for every mount, in the order of the table, until it returns something else than 0,
 * which is returned. 0, what `each` returned, or the negative errno of reading. */
int mount_table_each(int (*each)(void *context, const char *mountpoint, const char *type,
                                 const char *source),
                     void *context);
/* True for the types under which unshard mounts. */
bool mount_table_is_unshard(const char *type);

#endif
