/* SPDX-License-Identifier: MIT
 * Puts verified bytes into the kernel's page cache: struct unshard_publisher over
 * fuse_lowlevel_notify_store (fs/kernel/README.md 1), and the engine's events into the log. */
#ifndef FS_KERNEL_PUBLISHER_H
#define FS_KERNEL_PUBLISHER_H

#include "unshard.h"

struct filesystem;

/* The publisher for a file system whose session exists. It may be used until the session ends. */
struct unshard_publisher publisher_for(struct filesystem *filesystem);

#endif
