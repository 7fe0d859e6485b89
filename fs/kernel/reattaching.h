/* SPDX-License-Identifier: MIT
 *
 * What an earlier daemon of the mount had attached is attached again: who has it open goes on, and
 * what was being prefetched is. A file that is read before its turn comes is attached then
 * (opening.c). */
#ifndef FS_KERNEL_REATTACHING_H
#define FS_KERNEL_REATTACHING_H

#include "fs/kernel/filesystem.h"

/* Begins, where requests wait. Never blocks. */
void reattaching_begin(struct filesystem *filesystem);

#endif
