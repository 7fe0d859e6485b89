/* SPDX-License-Identifier: MIT
 *
 * What is read of the files of `.unshard`: each is rendered when it is opened and read from that
 * snapshot, so a reader sees one consistent state.
 *
 * A handle is the number of a snapshot. The text is kept (keep.h), so that who has read a part of
 * it when the process dies reads the rest of the same from the next one.
 *
 * Snapshots are immutable, and end with their last reference. The mutex is a leaf, and also what
 * hands a snapshot from the thread that made it to those that read it: between them there is only
 * the kernel. */
#ifndef FS_KERNEL_STATUS_SNAPSHOTS_H
#define FS_KERNEL_STATUS_SNAPSHOTS_H

#include <stddef.h>
#include <stdint.h>

#include "fs/kernel/status_reader.h"

/* Before the first request: how many processes have served the mount before this one. The snapshots
 * that those have kept are there again. keep: NULL is allowed. */
void status_snapshots_begin(struct unshard_keep *keep, unsigned generation);
/* A file as it is now, for *reader, who is taken over; the caller has a reference. Who opens it
 * several times at one moment, in the same groups, shares a snapshot, and of those that a user
 * holds the oldest lose their text when they are too much together. 0 when memory is short.
 * Thread-safe, as are those below. */
uint64_t status_snapshot_take(unsigned file, const struct filesystem *filesystem,
                              struct status_reader *reader);
void status_snapshot_release(uint64_t number);
/* The text and its length, valid until status_snapshot_end_read, even when the snapshot is released
 * meanwhile; NULL when it was taken away or there is none, and then there is nothing to end. */
const char *status_snapshot_begin_read(uint64_t number, size_t *length);
void status_snapshot_end_read(uint64_t number);
/* Frees those that are left when no request is served any more: a reader's RELEASE can come after
 * the mount has gone, that is, never. */
void status_snapshots_end(void);

#endif
