/* SPDX-License-Identifier: MIT
 *
 * The two ways to read a file without leaving pages of it in memory that were not there before:
 * from the page cache what it has, past it what it has not.
 */
#ifndef STORE_FILE_READ_H
#define STORE_FILE_READ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A direct read starts at a multiple of this, in the file and in memory, and may write the buffer
 * up to the length rounded up to it. */
#define DIRECT_ALIGNMENT 4096

/* Takes the range from the page cache when all of it is there, without waiting for storage and
 * without having it read anything. 1: taken; 0: not all is there; -EOPNOTSUPP: this file system
 * cannot tell. fd is open without O_DIRECT, offset a multiple of the page size, length not 0; at 0
 * buffer may have been written. Thread-safe. */
int file_read_if_cached(int fd, uint64_t offset, void *buffer, size_t length);

/* Reads past the page cache until length bytes are there, the file ends, or the file system brings
 * less than a block time after time. fd is open with O_DIRECT, offset and buffer are aligned. The
 * bytes read, or a negative errno: -EINVAL when the file system does not take it. Blocks as the
 * storage does. Thread-safe. */
ssize_t file_read_direct(int fd, uint64_t offset, void *buffer, size_t length);

#endif
