/* SPDX-License-Identifier: MIT
 *
 * A file that is written at a path where others may have a say: /tmp, a user's directory. */
#ifndef FS_HOST_TRUSTED_FILE_H
#define FS_HOST_TRUSTED_FILE_H

/* Opens the file at an absolute path to append to it, and creates it with mode 0640 when it is not
 * there. Symbolic links, of any component, are followed when they belong to this user or to root;
 * a file of somebody else, or with several names, is taken only in a directory that belongs to one
 * of these and is not writable for everybody. A FIFO does not wait for a reader. The descriptor is
 * close-on-exec and does not block. -ELOOP: a link of somebody else; -EPERM: such a file; -ENXIO: a
 * socket; -EINVAL: another thing that is no file; or another negative errno. Blocks on I/O. */
int trusted_file_append(const char *path);

#endif
