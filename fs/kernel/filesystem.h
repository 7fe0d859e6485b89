/* SPDX-License-Identifier: MIT
 * What the operations, the publisher and the life cycle of one mount share. Everything is set
 * before the first request and not changed while requests are served. */
#ifndef FS_KERNEL_FILESYSTEM_H
#define FS_KERNEL_FILESYSTEM_H

#include "unshard.h"

struct fuse_session;
struct inode_table;
struct control;
struct retriever;

/* Of a mount in a user namespace that knows the user's first group alone: files of the other groups
 * are shown as that one's, since they would be nobody's, and the user may read them. */
struct known_groups {
    gid_t first;
    const gid_t *others;
    unsigned count; /* of others; 0: all groups are shown as they are */
};

struct filesystem {
    struct unshard_checkpoint *checkpoint;
    struct unshard_engine *engine;
    struct inode_table *inodes;
    struct fuse_session *session;
    struct control *control;
    struct retriever *retriever; /* NULL: nothing is taken back from the page cache */
    uint64_t total_bytes;        /* of all views, for statfs */
    struct known_groups groups;
    const char *mountpoint; /* canonical; NULL: not to be found out */
    unsigned connection;    /* its number; 0: not known */
    int initialised_fd;     /* an eventfd written when the kernel has greeted us; -1: none */
};

#endif
