/* SPDX-License-Identifier: MIT
 *
 * Which source files are open. A checkpoint may have more shards than a process may have
 * descriptors: so many stay open as there are descriptors for, and when another one is wanted, the
 * one goes whose last read is longest ago. A file that is being read is pinned and stays.
 *
 * A file that is closed and opened again must be what it was: its identity is compared at each
 * open, and each open goes the way that discovery went (checkpoint_open_file), symlinks and all. As
 * long as it is open, a file that was deleted can be read on.
 */
#ifndef STORE_OPEN_FILES_H
#define STORE_OPEN_FILES_H

#include "store/source.h"
#include "tree/model.h"

#include <stdatomic.h>

struct open_files;

/* One content of a source file, open. Valid while it is pinned. */
struct open_file {
    int buffered, direct;  /* direct: -1 where the file system does not take O_DIRECT */
    bool in_memory;        /* of a file system that has no storage */
    atomic_bool no_nowait; /* RWF_NOWAIT is not supported */
    struct source_identity identity;

    /* Of open_files.c, under its lock. */
    uint32_t number;
    unsigned pins;
    struct open_file *older, *newer; /* among those without pins, by their last use */
};

/* How many files may be open, from RLIMIT_NOFILE as it is now. */
size_t open_files_limit(void);

/* Opens nothing yet. most: files that are open at a time, at least 1. 0 or -ENOMEM. The checkpoint
 * must outlive *out. */
int open_files_create(const struct unshard_checkpoint *checkpoint, size_t most,
                      struct open_files **out);
/* Closes all. Nothing may be pinned. NULL is allowed. */
void open_files_free(struct open_files *files);
/* Ends the waiting for descriptors: open_files_pin fails with -ECANCELED where it would wait.
 * Thread-safe. */
void open_files_cancel(struct open_files *files);

/* The file, open and pinned; to be given to open_files_unpin. Blocks: on storage, and as long as
 * all descriptors are in use, here or in the whole system, which is not an error of the file. A
 * thread may pin one file at a time. Thread-safe. 0, or a negative errno with *error: "missing",
 * "truncated", "changed" (it is not what it was), "read-error". */
int open_files_pin(struct open_files *files, uint32_t number, struct open_file **out,
                   struct unshard_error *error);
void open_files_unpin(struct open_files *files, struct open_file *file);

/* What the file must be: what discovery saw, or the last open_files_renew. Thread-safe. */
struct source_identity open_files_identity(struct open_files *files, uint32_t number);
/* Opens what is at the path now, and has that from now on; who has the old content pinned keeps it.
 * Blocks as open_files_pin does. Thread-safe. 0 or a negative errno with *error. */
int open_files_renew(struct open_files *files, uint32_t number, struct unshard_error *error);
/* When the file was opened last, it took O_DIRECT. Thread-safe. */
bool open_files_were_direct(struct open_files *files, uint32_t number);

/* The open file is still what it was when it was opened. Blocks. 0, or as open_files_pin. */
int open_file_check(const struct open_file *file, const char *path, struct unshard_error *error);
/* The error of a file that ends before what is needed of it. */
int open_file_truncated(const char *path, uint64_t end, uint64_t needed,
                        struct unshard_error *error);

#endif
