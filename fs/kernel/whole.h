/* SPDX-License-Identifier: MIT
 *
 * A source of which all is the engine's from the start: one that is one model, so that the status
 * tells of all of it and all of it can be prefetched before anybody opens a file, or any other
 * where that was asked for. Its directories are walked before the mount stands, their files
 * attached once the engine runs, in the order of the walk.
 *
 * It follows the source as far as somebody looks: when a directory is found to have another layout
 * (whole_seen), a thread of the room where requests wait attaches what is new, in new directories
 * below it too, and lets go of what is gone.
 *
 * The mutex of a whole is a leaf: its list of directories changes under it. What a directory has is
 * of the main thread until the first request, then of the one thread that follows. */
#ifndef FS_KERNEL_WHOLE_H
#define FS_KERNEL_WHOLE_H

#include "fs/kernel/filesystem.h"

/* Walks the tree. *out is owned by the caller. Blocks on I/O. 0 or -ENOMEM with *error. */
int whole_survey(struct unshard_tree *tree, struct whole **out, struct unshard_error *error);
/* When inode table and engine are done with: only memory is freed. NULL is allowed. */
void whole_free(struct whole *whole);
/* Calls found for each directory with its layout, in the order of the walk. Before whole_attach. */
int whole_each(const struct whole *whole, unshard_tree_found found, void *context);
/* Attaches all files. With engine and inodes of filesystem set; before the first request. 0, or a
 * negative errno with *error. */
int whole_attach(struct filesystem *filesystem, struct unshard_error *error);
/* A directory was looked at. Does nothing when filesystem has no whole. Never blocks, thread-safe.
 */
void whole_seen(struct filesystem *filesystem, const char *path, const struct unshard_place *place);

#endif
