/* SPDX-License-Identifier: MIT
 *
 * Which source files are open, and how often. Who reads a file has a handle of it to himself, and
 * who reads on from where a handle was left gets that one: so storage sees sequential streams on
 * separate handles. Much of it (network file systems, mounts of object stores) gives each handle
 * its own stream, and reads ahead on it.
 *
 * A checkpoint may have more shards than a process may have descriptors: so many handles stay open
 * as there are descriptors for, and when another one is wanted, the one goes whose last read is
 * longest ago. A handle that is being read from is pinned and stays; when there is no descriptor
 * for another one, readers of a file share what is open of it.
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
    uint64_t position;               /* where its last read ended */
    uint64_t idle_ns;                /* without pins: since when */
    struct open_file *next;          /* another handle of the same content */
    struct open_file *older, *newer; /* among those without pins, by their last use */
};

/* How many handles may be open, from RLIMIT_NOFILE as it is now. */
size_t open_files_limit(void);

/* Opens nothing yet. most: handles that are open at a time, at least 1. 0 or -ENOMEM. The
 * checkpoint must outlive *out. */
int open_files_create(const struct unshard_checkpoint *checkpoint, size_t most,
                      struct open_files **out);
/* A file that the checkpoint has got since. Before anything else is done with its number.
 * Thread-safe. */
void open_files_add(struct open_files *files, uint32_t number);
/* The file has another name as well, by which it is opened when the first one leads to it no more.
 * Beyond MOST_NAMES, and when memory is short, names are not kept. Thread-safe. */
#define MOST_NAMES 64U
void open_files_add_name(struct open_files *files, uint32_t number, const char *path);
/* The names: that by which it was opened last, or that the checkpoint has, then the others; NULL
 * from some place on. Valid until open_files_remove. Thread-safe. */
const char *open_files_name(struct open_files *files, uint32_t number, uint32_t place);
/* The name in that place leads to the file: it comes first from now on. Thread-safe. */
void open_files_prefer(struct open_files *files, uint32_t number, uint32_t place);
/* Closes what is open of the file, of which nothing may be pinned: its number may be another one's
 * from now on. May block. Thread-safe. */
void open_files_remove(struct open_files *files, uint32_t number);
/* Closes all. Nothing may be pinned. NULL is allowed. */
void open_files_free(struct open_files *files);
/* Ends the waiting for descriptors: open_files_pin fails with -ECANCELED where it would wait.
 * Thread-safe. */
void open_files_cancel(struct open_files *files);

/* A handle of the file, pinned, for a read at offset; to be given to open_files_unpin with where
 * that ended. Others have it too only when descriptors are short. Blocks: on storage, and as long
 * as all descriptors are in use, here or in the whole system, which is not an error of the file. A
 * thread may pin one handle at a time. Thread-safe. 0, or a negative errno with *error: "missing",
 * "truncated", "changed" (it is not what it was), "read-error". */
int open_files_pin(struct open_files *files, uint32_t number, uint64_t offset,
                   struct open_file **out, struct unshard_error *error);
void open_files_unpin(struct open_files *files, struct open_file *file, uint64_t end);
/* Closes handles that nobody has read from since before_ns (of CLOCK_MONOTONIC), but for one of
 * each file. May block. Thread-safe. */
void open_files_close_idle(struct open_files *files, uint64_t before_ns);

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
