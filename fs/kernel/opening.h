/* SPDX-License-Identifier: MIT
 * Files of the source: OPEN, READ, RELEASE, and their extended attributes. A file becomes the
 * engine's when it is first opened, or when an attribute is asked for that only the engine knows.
 *
 * With prefetch=open an OPEN of a file of a component that is not in the plan puts that in there,
 * its other files behind it, and behind these the other components of its pipeline in the order in
 * which they are loaded, whose files are attached for that and looked up by somebody else, so that
 * the kernel has inodes to store pages into. That is done by one thread of the room where requests
 * wait, for one component after the other. */
#ifndef FS_KERNEL_OPENING_H
#define FS_KERNEL_OPENING_H

#include <sys/types.h>

#include "fs/kernel/filesystem.h"

struct fuse_req;
struct fuse_file_info;

/* Each answers the request, at once or when the engine has taken the file up. None blocks. */
void opening_open(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                  const struct fuse_file_info *info);
void opening_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                  uint64_t offset, size_t size, const struct fuse_file_info *info);
void opening_release(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                     const struct fuse_file_info *info);
void opening_get_attribute(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                           const char *name, size_t size);
void opening_list_attributes(struct filesystem *filesystem, struct fuse_req *request,
                             uint64_t nodeid, size_t size);

#endif
