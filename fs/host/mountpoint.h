/* SPDX-License-Identifier: MIT
 * Mount points: what is mounted where, is it alive, and taking a mount away. */
#ifndef FS_HOST_MOUNTPOINT_H
#define FS_HOST_MOUNTPOINT_H

#include <stdbool.h>

#include "unshard.h"

/* A mount. */
struct mount_entry {
    unsigned major_number, minor_number; /* the minor is also the number of the FUSE connection */
    char path[4096];                     /* unescaped */
    char type[64];                       /* "fuse.unshard" */
};

/* What is mounted on top at an absolute, canonical path. 0; -ENOENT: nothing; other errors. Does
 * not touch the mount, so that it cannot hang on a dead one. */
int mountpoint_find(const char *path, struct mount_entry *out);

/* The same for a FUSE connection: where it is mounted. */
int mountpoint_find_connection(unsigned connection, struct mount_entry *out);

/* Makes an existing path absolute and free of links, even when a dead mount is there. *out is owned
 * by the caller. Blocks on I/O, but does not ask a mount that lies at the path itself. */
int mountpoint_resolve(const char *path, char **out, struct unshard_error *error);

/* Whether `inner` is `outer` or below it, both canonical. */
bool mountpoint_contains(const char *outer, const char *inner);

/* Checks that `path` can be mounted on: a directory apart from `source`, or, with `over`, the very
 * same, with no live unshard mount on it and nobody else about to mount there (*claim, for
 * claim_release once the mount stands). A dead one that a killed daemon left is taken away first,
 * its connection being ended when it hangs; one that does not answer but whose daemon runs is left
 * alone. Both paths are canonical. Takes some seconds when a mount does not answer. */
int mountpoint_prepare(const char *path, const char *source, bool over, int *claim,
                       struct unshard_error *error);

/* After mounting: whether no other unshard mount was there before it, and the mount appears nowhere
 * where it would cover the source or lie in it, as it does when a bind mount leads there and mounts
 * propagate. 0, or why not. */
int mountpoint_check_alone(const char *path, const char *source, unsigned connection,
                           struct unshard_error *error);

/* Makes the path of a file that is to be written absolute, its directory being there: *path is
 * replaced. Refuses what lies in the source or below the mount point, both canonical. NULL in *path
 * is allowed. Blocks on I/O. */
int mountpoint_outside_file(char **path, const char *mountpoint, const char *source,
                            struct unshard_error *error);

/* Whether an unshard mount of that name lies on top of a canonical path that nobody serves and that
 * lives all the same: somebody else keeps its descriptor, for whoever goes on with it. Takes a
 * second at most. */
bool mountpoint_waits(const char *path, const char *fsname);

/* What lies on top of a canonical path, opened with O_PATH: a mount is asked nothing. A descriptor
 * or a negative errno. */
int mountpoint_open(const char *path);
/* The FUSE connection of such a descriptor, without asking the mount. -ENOTTY: it cannot be one. */
int mountpoint_connection(int fd, unsigned *connection);
/* Whether the mount of this connection lies on top of `path`. */
bool mountpoint_is(const char *path, unsigned connection);

/* Takes the mount of this connection, on top of `path`, out of the tree, lazily: umount2 when
 * allowed, else fusermount3. Only when nothing can hang any more that holds a page of it: its
 * daemon serves or its connection was ended; otherwise every sync(2) of the machine waits. 0,
 * -ESTALE when another mount or none is there, or a negative errno. */
int mountpoint_detach(const char *path, unsigned connection);

/* Ends the connection, so that every request fails and every waiter wakes: through abort_fd (of
 * mountpoint_open_abort) when it is not negative, else umount2(MNT_FORCE) of path, if its mount is
 * on top there. 0 or a negative errno. */
int mountpoint_abort(const char *path, unsigned connection, int abort_fd);

/* Opens the abort file of a connection. A descriptor, or a negative errno when there is no fusectl.
 */
int mountpoint_open_abort(unsigned connection);

#endif
