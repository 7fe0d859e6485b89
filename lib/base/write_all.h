/* SPDX-License-Identifier: MIT */
#ifndef BASE_WRITE_ALL_H
#define BASE_WRITE_ALL_H

#include <stddef.h>

/* Writes all of it, however many calls it takes. 0 or a negative errno, which errno is set to as
 * well. Blocks as the descriptor does; what was written before an error stays. */
int write_all(int fd, const void *data, size_t length);

#endif
