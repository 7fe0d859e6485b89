/* SPDX-License-Identifier: MIT
 *
 * Names that lead elsewhere by now. The kernel asks for a name again when somebody uses it; until
 * then it keeps the inode of what was there, and we the view with its pages, and the status tells
 * of it. So when a directory is found to have another layout, the kernel is told to forget those
 * names in it that lead to another view, or nowhere. Who has such a file open keeps it. */
#ifndef FS_KERNEL_FORGETTING_H
#define FS_KERNEL_FORGETTING_H

#include "fs/kernel/filesystem.h"

/* A directory was looked at. Never blocks, thread-safe. */
void forgetting_seen(struct filesystem *filesystem, const char *path,
                     const struct unshard_place *place);

#endif
