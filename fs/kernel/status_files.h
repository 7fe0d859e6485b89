/* SPDX-License-Identifier: MIT
 * The virtual directory `.unshard` in the root of the mount: its files, which are read as they were
 * when they were opened (status_snapshots.h). Nothing here waits for a worker or for storage. */
#ifndef FS_KERNEL_STATUS_FILES_H
#define FS_KERNEL_STATUS_FILES_H

#include <sys/stat.h>

#include "unshard.h"

#define STATUS_DIRECTORY_NAME ".unshard"

/* Number of files in the directory; they are numbered from 0. */
unsigned status_file_count(void);
const char *status_file_name(unsigned file);
/* The file called `name`, or -1. */
int status_file_find(const char *name);
/* What a file says of a status; the caller frees it. NULL when memory is short. */
char *status_file_text(unsigned file, const struct unshard_status *status);
/* Attributes of a file, or of the directory itself when file is -1, with the owner, group and mode
 * of `shown`. */
void status_file_attributes(int file, const struct stat *shown, struct stat *out);

#endif
