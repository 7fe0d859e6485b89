/* SPDX-License-Identifier: MIT
 *
 * What the kernel tells of source files (inotify): that one may have been changed, or that its path
 * may lead to another one.
 *
 * Watched are directories: all in which a name is looked up on the way to the file, through
 * symlinks too. So a link of a hub's snapshot is told of as well as the blob that it leads to, and
 * a directory on the way that is replaced. Nothing is told of
 *   - file systems that others change as well (network, FUSE): only local ones count;
 *   - a file that has other names, or is mounted over: it may be changed from elsewhere;
 *   - directories that may not be read, and those that there are no watches left for;
 *   - the way to the source itself; file systems that are mounted over something on the way;
 *   - writes through a mapping, until who writes closes the file; and those of an NFS server.
 * So what is told comes fast, but whoever relies on it has to look himself now and then.
 *
 * For one thread.
 */
#ifndef STORE_NOTICES_H
#define STORE_NOTICES_H

#include "tree/model.h"

struct notices;

/* Zero-initialised is what is right outside of tests. */
struct notices_options {
    /* Whether the kernel tells of all that happens in the open directory; NULL: where its file
     * system is a local one. */
    bool (*tells)(int directory);
    uint32_t most_directories; /* that are watched; 0: a quarter of what a user may watch */
};

/* Nothing is watched yet. The checkpoint must outlive *out. 0 or -ENOMEM. */
int notices_create(const struct unshard_checkpoint *checkpoint,
                   const struct notices_options *options, struct notices **out);
void notices_free(struct notices *notices);

/* A file that the checkpoint has and that is to be watched; before notices_watch. 0 or -ENOMEM. */
int notices_add(struct notices *notices, uint32_t file);
/* It is found by another path than the checkpoint has, which must be valid until notices_remove. 0
 * or -ENOMEM. */
int notices_rename(struct notices *notices, uint32_t file, const char *path);
/* The kernel may go on telling of it, which is not passed on. */
void notices_remove(struct notices *notices, uint32_t file);

/* Has the kernel tell of these files from now on; of what happened before, the caller learns by
 * looking at them afterwards. Watching one again is right whenever its path may lead elsewhere.
 * told[i]: it does tell of files[i], but for the exceptions above. Blocks on storage. */
void notices_watch(struct notices *notices, const uint32_t *files, uint32_t count, bool *told);

/* The same without looking at the files themselves, which takes a tenth of the time: it is told
 * what happens to their names from now on, for as long as they lead to files and not on to others.
 * Each is still to be watched. */
void notices_watch_names(struct notices *notices, const uint32_t *files, uint32_t count);

/* Calls told(context, file, elsewhere) for what the kernel has told since the last call; elsewhere:
 * its path may lead to another file, so it is to be watched anew. A file may come several times,
 * and for nothing. False: something was lost, and nothing is watched any more. Does not block. */
bool notices_take(struct notices *notices,
                  void (*told)(void *context, uint32_t file, bool elsewhere), void *context);
/* Nothing is watched any more. */
void notices_forget(struct notices *notices);

#endif
