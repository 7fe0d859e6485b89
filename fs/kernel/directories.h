/* SPDX-License-Identifier: MIT
 * Listing directories. `.unshard` is found by name but not listed, so that copying or comparing a
 * mount gives the checkpoint and nothing else; so are nodes that the library says that of. */
#ifndef FS_KERNEL_DIRECTORIES_H
#define FS_KERNEL_DIRECTORIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/kernel/filesystem.h"

struct fuse_req;

/* Answers READDIR, or READDIRPLUS when `plus`: each entry that then reaches the kernel counts as a
 * lookup. An offset is the number of the next entry. */
void directories_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      size_t size, off_t offset, bool plus);

#endif
