/* SPDX-License-Identifier: MIT
 *
 * How the bytes of shards are obtained from a directory. Direct I/O where the file system takes it,
 * so that a page is not cached twice; what is already cached is taken from there.
 */
#ifndef STORE_SOURCE_H
#define STORE_SOURCE_H

#include "store/file_read.h"
#include "tree/model.h"

#include <sys/stat.h>

struct source;

/* *out is owned by the caller. Opens nothing yet, and has at most as many files open at a time as
 * RLIMIT_NOFILE allows now. The checkpoint must outlive the source. */
int source_create(const struct unshard_checkpoint *checkpoint, struct source **out,
                  struct unshard_error *error);
/* Closes every descriptor. No read may be running. NULL is allowed. */
void source_free(struct source *source);
/* The checkpoint has got a file of this number, of which nobody else knows yet. */
void source_add(struct source *source, uint32_t file);
/* Closes what is open of a file that nobody reads or will read: its number may become another
 * one's. May block. */
void source_remove(struct source *source, uint32_t file);
/* Reads that wait for descriptors fail from now on. Thread-safe. */
void source_cancel(struct source *source);

/* What a source file is known by. */
struct source_identity {
    uint64_t device, inode, size;
    int64_t mtime_ns, ctime_ns;
};
/* Whether two identities are of one content. Names of inodes may drift on network file systems
 * while the file stays what it is: they count only together with ctime, which any change of a file
 * moves and a new file has of its own. ctime alone moves with permissions and links, too. */
static inline bool source_same_content(const struct source_identity *a,
                                       const struct source_identity *b)
{
    bool same_file = a->device == b->device && a->inode == b->inode;
    return a->size == b->size && a->mtime_ns == b->mtime_ns &&
           (same_file || a->ctime_ns == b->ctime_ns);
}
struct source_identity source_identity_of(const struct stat *status);
/* That of the file as it is read: what discovery saw, or the last source_reopen. Thread-safe. */
struct source_identity source_identity(const struct source *source, uint32_t file);
/* The file has another name as well: it counts as long as one of them leads to it. Thread-safe. */
void source_add_name(struct source *source, uint32_t file, const char *path);
/* That by which it was found last. Valid until source_remove. Thread-safe. */
const char *source_path(struct source *source, uint32_t file);
/* Looks at the file's path: 0 it is that file still; 1 another one, or changed, with `closely` also
 * in a way that size and mtime do not tell; a negative errno when it cannot be looked at (a file
 * that is gone can be read on while it is open). Blocks. For one thread. */
int source_poll(struct source *source, uint32_t file, bool closely);
/* Owner, group and mode of the file as the last source_poll saw it, or discovery. For the thread
 * that polls. */
struct permissions source_permissions(const struct source *source, uint32_t file);
/* Looks whether the source's path still leads to the directory that files are looked up in. 0: it
 * does; 1: it leads to another one, in which they are looked up from now on; a negative errno: to
 * none. Blocks. For one thread. */
int source_follow(struct source *source);
/* Reads what is at the path from now on. Reads that run go on with what they have. 0 or a negative
 * errno with *error. Blocks. Thread-safe. */
int source_reopen(struct source *source, uint32_t file, struct unshard_error *error);

/* Reads exactly [offset, offset + length) of a source file into buffer; offset is a multiple of
 * DIRECT_ALIGNMENT. *cached: the bytes came out of memory, reading them again costs nothing.
 * Blocks, for as long as the storage does. Thread-safe. 0, or a negative errno with *error:
 * "missing", "truncated" (the file ends earlier), "changed" (size, time or inode differ from what
 * discovery saw), "read-error". Reads that run at one time have handles of their own, and who reads
 * on where a read has ended has the same one: neighbouring chunks should be read by one thread. */
int source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer, size_t length,
                bool *cached, struct unshard_error *error);

/* The same from any offset and through the page cache, where what was read stays: for bytes that
 * will be wanted again soon. */
int source_read_cached(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, struct unshard_error *error);
/* Has [offset, offset + length) read into the page cache, as far as the kernel likes. Does not wait
 * for it. Thread-safe. */
void source_advise(struct source *source, uint32_t file, uint64_t offset, uint64_t length);

/* Closes handles that nobody has read from since before_ns (of CLOCK_MONOTONIC), but for one of
 * each file. May block. Thread-safe. */
void source_close_idle(struct source *source, uint64_t before_ns);

/* Tells whether reads of this file go past the page cache (for the status). Thread-safe. */
bool source_is_direct(const struct source *source, uint32_t file);

#endif
