/* SPDX-License-Identifier: MIT
 * The tree that a mount shows: the nodes of the checkpoint and, in the root, `.unshard`. */
#ifndef FS_KERNEL_NODES_H
#define FS_KERNEL_NODES_H

#include <sys/stat.h>

#include "fs/kernel/filesystem.h"

struct fuse_entry_param;

/* Extra node ids that the inode table needs besides those of the checkpoint. */
uint32_t nodes_extra_count(void);

/* The status file behind a node id, or -1. */
int nodes_status_file(const struct filesystem *filesystem, uint64_t nodeid);
bool nodes_is_status_directory(const struct filesystem *filesystem, uint64_t nodeid);
/* The node id of `.unshard` (file -1) or of one of its files. */
uint64_t nodes_status_nodeid(const struct filesystem *filesystem, int file);

/* Fills attributes and how many seconds the kernel may keep them. 0, or -ENOENT. */
int nodes_attributes(const struct filesystem *filesystem, uint64_t nodeid, struct stat *out,
                     double *timeout);
/* Fills what a reply to LOOKUP of a node id says. 0, or -ENOENT. Counts nothing. */
int nodes_entry(const struct filesystem *filesystem, uint64_t nodeid, struct fuse_entry_param *out);
/* Looks up a name. 0 with an entry, whose node id 0 says that there is none such; -ENOTDIR; -ENOENT
 * when parent is unknown. Counts nothing. */
int nodes_find(const struct filesystem *filesystem, uint64_t parent, const char *name,
               struct fuse_entry_param *out);

#endif
