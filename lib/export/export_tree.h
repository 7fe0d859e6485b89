/* SPDX-License-Identifier: MIT
 *
 * The names of an export: directories, symlinks, and files that appear under their name only when
 * they are complete. All paths are relative to target_fd and are those of the checkpoint's tree. */
#ifndef EXPORT_EXPORT_TREE_H
#define EXPORT_EXPORT_TREE_H

#include "unshard.h"

/* Creates the directory `target` (its parent must exist) or takes an empty one. A descriptor or a
 * negative errno, -ENOTEMPTY with a message for a directory that holds something. */
int export_tree_open(const char *target, struct unshard_error *error);
/* Makes the directories and symlinks of the tree. */
int export_tree_make(const struct unshard_checkpoint *checkpoint, int target_fd,
                     struct unshard_error *error);
/* Creates the temporary file of `path`, for writing. A descriptor or a negative errno. */
int export_tree_create(int target_fd, const char *path, struct unshard_error *error);
/* Gives the temporary file the node's mode (the owner may write) and time, flushes it and renames
 * it to `path`. Blocks on storage. */
int export_tree_finish(int target_fd, const char *path, int fd, const struct unshard_node *node,
                       struct unshard_error *error);
/* Removes the temporary file of `path`. */
void export_tree_discard(int target_fd, const char *path);
/* Gives directories their modes and flushes them, deepest first. Blocks on storage. */
int export_tree_sync(const struct unshard_checkpoint *checkpoint, int target_fd,
                     struct unshard_error *error);

#endif
