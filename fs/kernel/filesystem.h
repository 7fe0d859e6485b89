/* SPDX-License-Identifier: MIT
 * What the operations, the publisher and the life cycle of one mount share. Everything is set
 * before the first request and not changed while requests are served. */
#ifndef FS_KERNEL_FILESYSTEM_H
#define FS_KERNEL_FILESYSTEM_H

#include "fs/kernel/greeting.h"
#include "unshard.h"

struct fuse_session;
struct journal;
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
    struct unshard_keep *keep; /* for who goes on with the mount; NULL: nothing is kept */
    struct journal *journal;   /* in there; NULL as well */
    struct greeting greeting;
    struct control *control;
    struct retriever *retriever; /* NULL: nothing is taken back from the page cache */
    /* Owner, group and mode of `.unshard` and of the files in it. */
    struct stat status_directory, status_file;
    struct known_groups groups;
    /* Has the kernel look a path below the mount up, by somebody else: returns when that is done,
     * or will not be done. NULL: there is nobody who could. Blocks; for one thread at a time. */
    void (*look_up)(void *context, const char *path);
    void *look_up_context;
    /* Has another program go on with the mount: first it is tried, 0 or a negative errno with a
     * reason; then, when whoever has asked is answered, it is wanted and the process ends soon, or
     * not. NULL: that cannot be done. For one thread at a time. */
    int (*upgrade_try)(void *context, const char *program, char *reason, size_t capacity);
    void (*upgrade_decide)(void *context, bool wanted);
    void *upgrade_context;
    const char *mountpoint; /* canonical; NULL: not to be found out */
    unsigned connection;    /* its number; 0: not known */
    unsigned generation;    /* of this process, as the journal has it */
    /* Processes that have served it before, see unshard_mount_facts. */
    unsigned restarts;
    int64_t restart_time;
    const char *restart_reason;
    int initialised_fd; /* an eventfd written when the kernel has greeted us; -1: none */
};

#endif
