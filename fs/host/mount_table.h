/* SPDX-License-Identifier: MIT
 *
 * Which mounts this process sees (/proc/self/mountinfo). Never touches a mount itself, so that a
 * dead or hanging one can be looked up. */
#ifndef FS_HOST_MOUNT_TABLE_H
#define FS_HOST_MOUNT_TABLE_H

#include <stdbool.h>
#include <stdio.h>

/* One mount. */
struct mounted {
    unsigned major_number, minor_number; /* the minor is also the number of the FUSE connection */
    const char *mountpoint, *source;     /* unescaped */
    const char *type;                    /* "fuse.unshard" */
};

/* The absolute path of a mount point: resolves the directory above it, not the last name, since
 * looking at a dead mount fails. The caller frees it; NULL with errno. */
char *mount_table_resolve(const char *path);
/* Calls `each` for every mount, in the order of the table (later ones lie on top of earlier ones),
 * until it returns something else than 0, which is returned. What it is given is valid during the
 * call. 0, what `each` returned, or the negative errno of reading. */
int mount_table_each(int (*each)(void *context, const struct mounted *mounted), void *context);
/* The same from a stream in the format of mountinfo. */
int mount_table_each_of(FILE *stream, int (*each)(void *context, const struct mounted *mounted),
                        void *context);
/* True for the types under which unshard mounts. */
bool mount_table_is_unshard(const char *type);

#endif
