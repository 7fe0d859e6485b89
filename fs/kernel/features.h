/* SPDX-License-Identifier: MIT
 * What is agreed with the kernel when a connection starts. The only place that knows how libfuse
 * before and since 3.17 differ. */
#ifndef FS_KERNEL_FEATURES_H
#define FS_KERNEL_FEATURES_H

struct fuse_conn_info;

/* Sets capabilities and limits; for the init operation. */
void features_negotiate(struct fuse_conn_info *connection);

#endif
