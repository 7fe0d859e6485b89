/* SPDX-License-Identifier: MIT
 *
 * A source that something is mounted over, which is made of it. Its path leads to that then, and so
 * does every way that comes through it: symlinks that are absolute or climb, and even ".." into it
 * from one of its own directories. On such ways whoever comes to what covers the source goes on in
 * the source, through the descriptor that was opened before. */
#ifndef TREE_COVERED_H
#define TREE_COVERED_H

#include "tree/model.h"

#include <sys/stat.h>

/* *fd, opened with O_PATH, is replaced when it is of what covers the source, which is asked
 * nothing: its root by the source. 0; -EXDEV: something else of it, or another negative errno; then
 * *fd is closed. Thread-safe. */
int covered_replace(const struct unshard_checkpoint *checkpoint, int *fd);

/* Finds what a path leads to, as open and openat(source) with O_PATH do. A descriptor or a negative
 * errno. May block on I/O. Thread-safe. */
int covered_open(const struct unshard_checkpoint *checkpoint, const char *path);

/* Whether the path of the source, an absolute one, leads to what covers it. Asks that nothing. */
bool covered_is_there(const struct unshard_checkpoint *checkpoint);

#endif
