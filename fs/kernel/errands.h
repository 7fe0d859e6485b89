/* SPDX-License-Identifier: MIT
 *
 * Requests that need more of the source than a node: a directory as it is now, or the engine to
 * know a file. What is there without I/O is answered at once, by the loop thread; for the rest the
 * request goes to the room where requests wait (waiting.h).
 *
 * An errand owns what it is given, the reference to its node too, and ends with its answer. */
#ifndef FS_KERNEL_ERRANDS_H
#define FS_KERNEL_ERRANDS_H

#include <sys/types.h>

#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/waiting.h"

struct fuse_req;

struct errand {
    struct waiting_job job;
    struct filesystem *filesystem;
    struct inode *inode; /* what the request is about, with a reference; or NULL */
    /* Of an errand that looks: the directory, and the name in there that is looked for; NULL: the
     * directory itself. NULL for directory: the errand attaches the node. Both on the heap. */
    char *directory, *name;
    /* What the answer needs: */
    void *more; /* on the heap, or NULL */
    uint64_t handle;
    int flags;
    size_t size;
    off_t offset;
    /* Answers, exactly once. result: 0, or a negative errno of looking or attaching; -ENOENT also
     * when the directory has no such name. place: of what was looked for, which is there during the
     * call. May begin another errand. */
    void (*answer)(struct errand *errand, struct fuse_req *request, int result,
                   struct unshard_place *place);
};

/* Carries it out, and answers the request. *errand is copied. Never blocks. */
void errand_begin(const struct errand *errand, struct fuse_req *request);
/* Has the source itself looked at when nobody waits for it. Never blocks. */
void errand_look_at_root(struct filesystem *filesystem);
/* Looks whether a file is still what its path leads to, and enters it as it is seen there. 0;
 * -ESTALE: that is another file; another negative errno. Blocks on I/O. */
int errand_find_again(struct filesystem *filesystem, const struct inode *inode);
/* Attaches a file, looked at where its path leads now if need be. 0; -ESTALE: that is another file;
 * another negative errno. Blocks on I/O. */
int errand_attach_now(struct filesystem *filesystem, struct inode *inode);
/* Answers with an error instead, and ends the errand. */
void errand_refuse(const struct errand *errand, struct fuse_req *request, int error);
/* Has the errand look where its node was seen last: fills directory and name, and `more` with the
 * path. 0 or -ENOMEM. */
int errand_look_for_inode(struct errand *errand);

#endif
