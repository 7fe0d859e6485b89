/* SPDX-License-Identifier: MIT
 *
 * Which files may be reached through the checkpoint. A path is followed through symlinks only to
 * what lies inside the checkpoint, or inside the hub cache repository around it, unless the user
 * allows more. The check is made on the opened object, so a path that changes meanwhile cannot pass
 * it. */
#ifndef CHECKPOINT_PATH_POLICY_H
#define CHECKPOINT_PATH_POLICY_H

#include "base/arena.h"
#include "checkpoint/model.h"

#include <sys/stat.h>

/* The root of the hub cache repository that holds `source` (an absolute path without symlinks):
 * ".../models--X" for ".../models--X/snapshots/REV[/...]". *out lives in arena, NULL when there is
 * none. 0 or -ENOMEM. */
int path_policy_blob_root(const char *source, struct arena *arena, const char **out);

/* Finds what `path` (relative to the source, "" for the source itself) leads to, without opening
 * it: no device is touched, a FIFO does not block. Returns an O_PATH descriptor and fills *status,
 * or a negative errno: -EXDEV when it lies outside, -ELOOP, -ENOENT... May block on I/O.
 * Thread-safe. */
int path_policy_resolve(const struct unshard_checkpoint *checkpoint, const char *path,
                        struct stat *status);

/* Opens for reading what path_policy_resolve found. Takes no ownership of path_fd. */
int path_policy_reopen(int path_fd, int flags);

/* The symlink text `target`, found in a directory `depth` levels below the source, stays inside the
 * checkpoint by its words alone: relative, and never above the source. */
bool path_policy_target_is_inside(const char *target, unsigned depth);

/* The path (relative to the source) lies in .git or .cache, where programs keep what is no part of
 * the model. */
bool path_policy_is_private(const char *path);

#endif
