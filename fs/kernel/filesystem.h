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
struct waiting_room;
struct whole;

/* Of a mount in a user namespace that knows the user's first group alone: files of the other groups
 * are shown as that one's, since they would be nobody's, and the user may read them. */
struct known_groups {
    gid_t first;
    const gid_t *others;
    unsigned count; /* of others; 0: all groups are shown as they are */
};

struct filesystem {
    struct unshard_tree *tree;
    struct unshard_engine *engine;
    struct inode_table *inodes;
    struct waiting_room *waiting;
    struct whole *whole; /* NULL: views are attached when they are opened; else all are from the
                          * start (whole.h) */
    bool prefetch_open;  /* a component is prefetched when a file of it is opened */
    struct fuse_session *session;
    struct control *control;
    struct retriever *retriever; /* NULL: nothing is taken back from the page cache */
    /* Owner, group and mode of `.unshard` and of the files in it. */
    struct stat status_directory, status_file;
    struct known_groups groups;
    /* Has the kernel look a path below the mount up, by somebody else: returns when that is done,
     * or will not be done. NULL: there is nobody who could. Blocks; for one thread at a time. */
    void (*look_up)(void *context, const char *path);
    void *look_up_context;
    const char *mountpoint; /* canonical; NULL: not to be found out */
    unsigned connection;    /* its number; 0: not known */
    int initialised_fd;     /* an eventfd written when the kernel has greeted us; -1: none */
};

#endif
