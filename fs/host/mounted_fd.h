/* SPDX-License-Identifier: MIT
 * A mount that somebody with the privileges for it has made, and whose /dev/fuse descriptor we are
 * given as the mount point "/dev/fd/N": a container without privileges can serve it. */
#ifndef FS_HOST_MOUNTED_FD_H
#define FS_HOST_MOUNTED_FD_H

#include "fs/host/mountpoint.h"

/* The descriptor of a path "/dev/fd/N", or -1 when it is another path. */
int mounted_fd_parse(const char *path);
/* The number of the connection that a descriptor of /dev/fuse was mounted as, from its file in
 * /proc/PID/fdinfo; 0 when the kernel does not tell. */
unsigned mounted_fd_connection(const char *path);
/* Finds what is mounted with the descriptor: out->minor_number is the number of the connection, 0
 * when the kernel does not tell (older ones do not); out->path is where it is mounted, "" when that
 * cannot be seen from here. Fails when the descriptor is no /dev/fuse. */
int mounted_fd_find(int fd, struct mount_entry *out, struct unshard_error *error);

#endif
