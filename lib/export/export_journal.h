/* SPDX-License-Identifier: MIT
 *
 * What makes an export that was interrupted go on: the file .unshard-export in its target, which is
 * there until all is written.
 *
 * It is a sequence of records that end with a NUL, since paths may hold anything else:
 *   unshard-export 1 SOURCE                  the first one
 *   t PATH                                   the temporary file of PATH is made next
 *   b INODE SIZE MTIME PATH                  that file is complete and gets its name next
 *   d INODE SIZE MTIME CTIME FINGERPRINT FINGERPRINT PATH   it has it; the halves of a fingerprint
 * A file is of the export when a record of its path says so; it is kept when it is the very file
 * that was finished, and what it is made from is what it was (the fingerprint). A record that could
 * not be written as a whole is taken back, or ends the file: then its file is written again. */
#ifndef EXPORT_EXPORT_JOURNAL_H
#define EXPORT_EXPORT_JOURNAL_H

#include "base/arena.h"
#include "base/string_map.h"
#include "base/xxh3.h"
#include "unshard.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define EXPORT_JOURNAL_NAME ".unshard-export"

struct export_record {
    const char *path;
    bool temporary, begun, done; /* its records that were found */
    uint64_t inode, size;        /* of the file that was begun or done */
    int64_t mtime_ns, ctime_ns;  /* the latter of one that is done */
    XXH128_hash_t fingerprint;   /* the same */
};

struct export_journal {
    int fd;
    bool resumed;                  /* there was one; else the target was empty */
    struct export_record *records; /* of an earlier run, one for each path; const afterwards */
    uint32_t record_count, record_capacity;
    struct string_map by_path;
    struct arena arena;
    pthread_mutex_t lock; /* of what is written, and while it is */
    uint64_t length;
};

/* Finds the journal of the target, or makes one in an empty directory. Locked until it is closed.
 * source: absolute path. Errors: "target-not-empty" (-ENOTEMPTY), "other-export" (-EEXIST: of
 * another source), "export-runs" (-EBUSY), "target". On failure there is nothing to close. Blocks
 * on I/O. */
int export_journal_open(struct export_journal *journal, int target_fd, const char *target,
                        const char *source, struct unshard_error *error);
/* complete: removes it, for nothing is left to be done. */
void export_journal_close(struct export_journal *journal, int target_fd, bool complete);

/* What an earlier run has said of the path, or NULL. */
const struct export_record *export_journal_find(const struct export_journal *journal,
                                                const char *path);
/* The file that has the path is of the export. */
bool export_record_owns(const struct export_record *record, const struct stat *status);
/* It is the one that was finished, from what has the fingerprint, and nobody has touched it. */
bool export_record_keeps(const struct export_record *record, const struct stat *status,
                         XXH128_hash_t fingerprint);

/* Before the temporary file of the path is made; before it, open as fd, gets its name; and after.
 * 0 or a negative errno: then the step is not to be taken. Thread-safe; block on I/O. */
int export_journal_temporary(struct export_journal *journal, const char *path);
int export_journal_begin(struct export_journal *journal, const char *path, int fd);
int export_journal_done(struct export_journal *journal, const char *path, int fd,
                        XXH128_hash_t fingerprint);

#endif
