/* SPDX-License-Identifier: MIT
 * The answers to what the kernel asks about names and nodes: LOOKUP, FORGET, GETATTR, READLINK. */
#ifndef FS_KERNEL_LOOKUPS_H
#define FS_KERNEL_LOOKUPS_H

#include <stdint.h>

#include "fs/kernel/filesystem.h"

struct fuse_req;

/* Each answers the request, at once or when what has to be looked at has been. None blocks. */
void lookups_find(struct filesystem *filesystem, struct fuse_req *request, uint64_t parent,
                  const char *name);
void lookups_attributes(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid);
void lookups_link(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid);

#endif
