/* SPDX-License-Identifier: MIT */
#ifndef BASE_READ_FULLY_H
#define BASE_READ_FULLY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* pread until length bytes are there or the file ends. The bytes read, or a negative errno. Blocks
 * as the storage does. Thread-safe. */
ssize_t read_fully(int fd, uint64_t offset, void *buffer, size_t length);

#endif
