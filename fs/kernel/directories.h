/* SPDX-License-Identifier: MIT
 * Listing directories. A listing is of one layout, that of the moment of its first READDIR, which
 * the handle holds: so an offset says the same until the last one. A handle that an earlier process
 * has given goes on in the layout of now. OPENDIR looks at nothing, since
 * commands open the root before they look into `.unshard`, whatever the source is doing. `.unshard`
 * is found by name but not listed, so that copying or comparing a mount gives the checkpoint and
 * nothing else; so are nodes that the library says that of. */
#ifndef FS_KERNEL_DIRECTORIES_H
#define FS_KERNEL_DIRECTORIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/kernel/filesystem.h"

struct fuse_req;
struct fuse_file_info;

/* Before the first request: how many processes have served the mount before this one. */
void directories_begin(unsigned generation);
/* Answers OPENDIR, at once. */
void directories_open(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      const struct fuse_file_info *info);
/* Answers READDIR, or READDIRPLUS when `plus`, at once or when the directory has been looked at:
 * each entry that then reaches the kernel counts as a lookup. An offset is the number of the next
 * entry. */
void directories_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      const struct fuse_file_info *info, size_t size, off_t offset, bool plus);
/* Answers RELEASEDIR. */
void directories_release(struct fuse_req *request, const struct fuse_file_info *info);
/* Frees handles that are left when no request is served any more. */
void directories_end(void);

#endif
