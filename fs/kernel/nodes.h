/* SPDX-License-Identifier: MIT
 * What the kernel is told of a node: of the source's tree, or of `.unshard` in its root. */
#ifndef FS_KERNEL_NODES_H
#define FS_KERNEL_NODES_H

#include <sys/stat.h>

#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"

struct fuse_entry_param;

/* Seconds for which the kernel may believe what it was told of the source's tree, that there is no
 * such name included. Together with the second for which a look at a directory may be believed it
 * is less than the two within which a mount is to show what has become of its source. */
#define NODES_TIMEOUT 0.5

/* The status file behind a node id, or -1. */
int nodes_status_file(uint64_t nodeid);
bool nodes_is_status_directory(uint64_t nodeid);
/* The node id of `.unshard` (file -1) or of one of its files. */
uint64_t nodes_status_nodeid(int file);
/* Attributes of `.unshard` (file -1) or of one of its files, and what a reply to their LOOKUP says.
 */
void nodes_status_attributes(const struct filesystem *filesystem, int file, struct stat *out);
void nodes_status_entry(const struct filesystem *filesystem, int file,
                        struct fuse_entry_param *out);

/* Attributes of a node that is here now: of an attached file as the engine knows it, else as it was
 * when its directory was looked at. */
void nodes_attributes(const struct filesystem *filesystem, const struct inode *inode,
                      const struct unshard_place *place, struct stat *out);
/* What a reply to LOOKUP of it says. Counts nothing. */
void nodes_entry(const struct filesystem *filesystem, const struct inode *inode,
                 const struct unshard_place *place, struct fuse_entry_param *out);

/* A number that stands for a path, of which the first `length` bytes count. */
uint64_t nodes_path_hash(const char *path, size_t length);
/* "directory/name", or just name below the source itself. The caller frees it; NULL when memory is
 * short. */
char *nodes_path(const char *directory, const char *name);

#endif
