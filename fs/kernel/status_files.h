/* SPDX-License-Identifier: MIT
 * The virtual directory `.unshard` in the root of the mount. Each file is rendered when it is
 * opened and read from that snapshot, so a reader sees one consistent state; nothing here waits for
 * a worker or for storage. */
#ifndef FS_KERNEL_STATUS_FILES_H
#define FS_KERNEL_STATUS_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/kernel/status_reader.h"

#define STATUS_DIRECTORY_NAME ".unshard"

/* Number of files in the directory; they are numbered from 0. */
unsigned status_file_count(void);
const char *status_file_name(unsigned file);
/* The file called `name`, or -1. */
int status_file_find(const char *name);
/* The content of a file at one moment. Immutable; freed with its last reference. All but `file` and
 * `reader` is of status_files.c, under a mutex there. */
struct status_snapshot {
    unsigned file;
    struct status_reader reader;             /* who opened it */
    struct status_snapshot *next, *previous; /* among all there are */
    unsigned references, readers;            /* readers: READs at work, which have references too */
    uint64_t begun_ns, cost_ns;              /* when it was made, and how long that took */
    size_t length;
    char *text; /* NULL: taken away from a user who held too many */
};
/* A file as it is now, for *reader, who is taken over; the caller has a reference. Who opens it
 * several times at one moment, in the same groups, shares a snapshot, and of those that a user
 * holds the oldest lose their text when they are too much together. NULL when memory is short.
 * Thread-safe. */
struct status_snapshot *status_snapshot_take(unsigned file, const struct filesystem *filesystem,
                                             struct status_reader *reader);
void status_snapshot_release(struct status_snapshot *snapshot);
/* The text and its length, valid until status_snapshot_end_read, even when the snapshot is released
 * meanwhile; NULL when it was taken away, and then there is nothing to end. */
const char *status_snapshot_begin_read(struct status_snapshot *snapshot, size_t *length);
void status_snapshot_end_read(struct status_snapshot *snapshot);
/* Frees those that are left when no request is served any more: a reader's RELEASE can come after
 * the mount has gone, that is, never. */
void status_snapshots_end(void);
/* Attributes of a file, or of the directory itself when file is -1, with the owner, group and mode
 * of `shown`. */
void status_file_attributes(int file, const struct stat *shown, struct stat *out);

#endif
