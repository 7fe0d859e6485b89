/* SPDX-License-Identifier: MIT
 *
 * Which files may be reached through the checkpoint. A path is followed through symlinks only to
 * what lies inside the checkpoint, unless the user allows more. A checkpoint that is, or lies in, a
 * repository of the hub's cache (formats/README.md 4.1 and 4.2) also reaches
 *   - the repository's blobs, where the symlinks of its snapshots lead;
 *   - blobs that the repositories of the cache share, when a blob of the repository leads there.
 * The check is made on the opened object, so a path that changes meanwhile cannot pass it. */
#ifndef TREE_PATH_POLICY_H
#define TREE_PATH_POLICY_H

#include "base/arena.h"
#include "tree/model.h"

#include <limits.h>
#include <sys/stat.h>

/* Finds the repository of the hub's cache that the source (an absolute path without symlinks) is or
 * lies in: sets checkpoint->repository. 0 or -ENOMEM. */
int path_policy_find_hub(struct unshard_checkpoint *checkpoint);

/* The first `length` bytes of name are what a repository in the hub's cache is called. */
bool path_policy_is_repository(const char *name, size_t length);
/* By its last two names the path is that of the directory `part` ("blobs", "snapshots") of such a
 * repository. */
bool path_policy_is_of_repository(const char *directory, const char *part);

/* Where an open descriptor is, as the kernel says it. 0 or a negative errno. */
int path_policy_path_of(int fd, char out[PATH_MAX]);

/* Finds what `path` (relative to the source, "" for the source itself) leads to, without opening
 * it: no device is touched, a FIFO does not block. Returns an O_PATH descriptor and fills *status,
 * or a negative errno: -EXDEV when it lies outside, -ELOOP, -ENOENT... May block on I/O, and waits
 * some seconds when all descriptors are in use: that is no fault of the file. Thread-safe. */
int path_policy_resolve(const struct unshard_checkpoint *checkpoint, const char *path,
                        struct stat *status);

/* Why a file cannot be opened, by the negative errno of these functions or of checkpoint_open_file,
 * and what can be done about it. A static string. */
const char *path_policy_reason(int error);

/* Opens for reading what path_policy_resolve found; waits as it does. Takes no ownership of
 * path_fd.
 */
int path_policy_reopen(int path_fd, int flags);

/* The symlink text `target`, found in a directory `depth` levels below the source, stays inside the
 * checkpoint by its words alone: relative, and never above the source. */
bool path_policy_target_is_inside(const char *target, unsigned depth);

/* The path (relative to the source) lies in a .git or .cache, where programs keep what is no part
 * of a model; but not in a repository of the hub's cache there. */
bool path_policy_is_private(const char *path);

#endif
