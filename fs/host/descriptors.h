/* SPDX-License-Identifier: MIT
 * Descriptors handed to another process through a socket. */
#ifndef FS_HOST_DESCRIPTORS_H
#define FS_HOST_DESCRIPTORS_H

#include <stddef.h>

#define DESCRIPTORS_MOST 4

/* Sends `length` > 0 bytes, with duplicates of `count` descriptors. 0 or a negative errno. May
 * block when the other end does not read. */
int descriptors_send(int socket, const int *fds, unsigned count, const void *data, size_t length);
/* Receives what one call of the above has sent: `length` bytes, and at most DESCRIPTORS_MOST
 * descriptors, which are closed on exec and the caller's; those of fds that did not come are -1. 0;
 * -EPIPE: the other end is gone, or something else came; another negative errno. Blocks. */
int descriptors_receive(int socket, int fds[DESCRIPTORS_MOST], void *data, size_t length);

#endif
