/* SPDX-License-Identifier: MIT */
#ifndef FS_HOST_WRITE_WHOLE_H
#define FS_HOST_WRITE_WHOLE_H

#include <stddef.h>

/* Writes all of it, however many calls that takes. 0 or a negative errno; what was written before
 * an error stays. Blocks as the descriptor does. */
int write_whole(int fd, const void *data, size_t length);

#endif
