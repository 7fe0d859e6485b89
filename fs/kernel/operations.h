/* SPDX-License-Identifier: MIT
 * The answers to the kernel's requests. None waits for storage, for a store or for another request,
 * so a few threads answer everything; what has to look at the source first does so in the room
 * where requests wait (errands.h). */
#ifndef FS_KERNEL_OPERATIONS_H
#define FS_KERNEL_OPERATIONS_H

struct fuse_lowlevel_ops;

/* The operations of a session whose user data is a struct filesystem. Static. */
const struct fuse_lowlevel_ops *operations_table(void);

#endif
