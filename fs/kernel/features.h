/* SPDX-License-Identifier: MIT
 * What is agreed with the kernel when a connection starts. The only place that knows how libfuse
 * before and since 3.17 differ. */
#ifndef FS_KERNEL_FEATURES_H
#define FS_KERNEL_FEATURES_H

/* What the kernel asks for, or hands over, at a time: bytes. */
#define LARGEST_READ (1u << 20)

struct fuse_conn_info;

/* Sets capabilities and limits; for the init operation. */
void features_negotiate(struct fuse_conn_info *connection);

#endif
