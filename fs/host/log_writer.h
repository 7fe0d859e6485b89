/* SPDX-License-Identifier: MIT
 *
 * Lines on their way to a file, a pipe or a terminal. Whoever has one to write leaves it here; one
 * thread writes, and may wait for a reader, a disk that is full, or storage that hangs. When too
 * many lines wait further ones are lost, and how many is written where they would have been. */
#ifndef FS_HOST_LOG_WRITER_H
#define FS_HOST_LOG_WRITER_H

#include <stdbool.h>
#include <stddef.h>

/* Where lines go. path: absolute, of the file that fd is of, for log_writer_reopen; NULL: none.
 * Takes over fd, but for standard error, and copies path. Before the thread runs. 0 or -ENOMEM. */
int log_writer_set(int fd, const char *path);

/* Leaves a line, which ends with a newline. Never blocks; thread-safe. Before the thread runs lines
 * wait. */
void log_writer_put(const char *line, size_t length);

/* Starts the thread. 0 or a negative errno. */
int log_writer_start(void);

/* The file has been renamed: the next lines go to one of the same path, which is opened again. When
 * that is not possible they go where they went, and a line says so. False: there is no path. */
bool log_writer_reopen(void);

/* Writes what is left, for a moment, with or without a thread, and ends. */
void log_writer_end(void);

#endif
