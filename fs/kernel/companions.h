/* SPDX-License-Identifier: MIT
 * prefetch=open: what is prefetched when a file is opened. See opening.h. */
#ifndef FS_KERNEL_COMPANIONS_H
#define FS_KERNEL_COMPANIONS_H

#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"

/* A file that is attached as `view` is opened, or to be warmed. Never blocks. */
void companions_begin(struct filesystem *filesystem, struct inode *inode, uint32_t view);
/* What a file is loaded together with, as far as that is known: a number for
 * unshard_engine_prefetch. */
uint64_t companions_model(struct filesystem *filesystem, const struct inode *inode);

#endif
