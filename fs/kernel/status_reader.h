/* SPDX-License-Identifier: MIT
 * Who opens a status file, and what it tells him: only of what lies in directories that he may
 * list. Root and who mounted are told of all. */
#ifndef FS_KERNEL_STATUS_READER_H
#define FS_KERNEL_STATUS_READER_H

#include "fs/kernel/filesystem.h"

struct fuse_req;

struct status_reader {
    struct unshard_user user; /* its groups are memory of this */
    bool all;                 /* he is told of all; then only his uid is known */
};

/* Who sent the request; the caller frees it. 0 or -ENOMEM. Reads /proc. */
int status_reader_find(struct fuse_req *request, struct status_reader *out);
void status_reader_free(struct status_reader *reader);
/* Whether what is told to one may be told to the other: they are the same user in the same groups.
 */
bool status_reader_is(const struct status_reader *reader, const struct status_reader *other);
/* The status of now for him; NULL when memory is short. Never blocks on storage. Thread-safe. */
struct unshard_status *status_reader_take(const struct filesystem *filesystem,
                                          const struct status_reader *reader);

#endif
