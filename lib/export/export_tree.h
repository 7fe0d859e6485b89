/* SPDX-License-Identifier: MIT
 *
 * The names of an export: directories, symlinks, and files that appear under their name only when
 * they are complete. All paths are relative to target_fd and are those of the checkpoint's tree. */
#ifndef EXPORT_EXPORT_TREE_H
#define EXPORT_EXPORT_TREE_H

#include "unshard.h"

#include <sys/stat.h>

/* Creates the directory `target` (its parent must exist) or takes the one that is there. A
 * descriptor or a negative errno. */
int export_tree_open(const char *target, struct unshard_error *error);
/* Makes the directories and symlinks of the tree. resumed: takes those that are there. */
int export_tree_make(const struct unshard_checkpoint *checkpoint, int target_fd, bool resumed,
                     struct unshard_error *error);
/* What is at `path`, no symlink on the way. 0 or a negative errno. */
int export_tree_stat(int target_fd, const char *path, struct stat *out);
/* Removes the file at `path`, no symlink on the way. */
void export_tree_remove(int target_fd, const char *path);
/* Creates the temporary file of `path`, for writing. A descriptor or a negative errno. */
int export_tree_create(int target_fd, const char *path, struct unshard_error *error);
/* Gives a temporary file the node's mode (the owner may write) and time, and flushes it. 0 or a
 * negative errno. Blocks on storage. */
int export_tree_seal(int fd, const struct unshard_node *node);
/* Gives the temporary file of `path` its name. 0 or a negative errno. */
int export_tree_name(int target_fd, const char *path);
/* Removes the temporary file of `path`. */
void export_tree_discard(int target_fd, const char *path);
/* Gives directories their modes and flushes them, deepest first. Blocks on storage. */
int export_tree_sync(const struct unshard_checkpoint *checkpoint, int target_fd,
                     struct unshard_error *error);

#endif
