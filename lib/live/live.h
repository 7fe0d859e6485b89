/* SPDX-License-Identifier: MIT
 *
 * A tree that lives: a source whose directories are laid out one by one, when somebody looks at
 * them, and anew when they have changed.
 *
 * What is remembered. Of each directory that was looked at there is one entry in a table
 * (directories.h), found by its path: the layout in force, or why there is none; when the look
 * began that has found it so; and whether somebody is looking just now. Everything else is derived.
 * What a layout was made from is in the layout itself (tree/trace.h): looking again is looking at
 * exactly that, and comparing. What does not lie in the directory and has no path of its own (what
 * the directories above leave to it, which options count, what a mount adds to the snapshot that
 * markers are of) is its context, and a number tells whether that is the same.
 *
 * The states of an entry, and how one becomes another:
 *
 *   unknown   no look has ended                        known = false
 *   fresh     began_ns + fresh_ns is still to come      answered at once, without any I/O
 *   stale     it has passed, or the context is another  the next who asks looks
 *   looking   (besides one of these) a thread looks, without the lock; others wait for it, or are
 *             given the layout in force for as long as it would be fresh once more
 *
 * A look at an entry that has a layout, in the same context, first looks again: nothing has
 * changed, and the same layout is in force; attributes have, and a copy of it is; else, and without
 * a layout, the directory is laid out. A look that fails is remembered as well, so that a directory
 * that cannot be read is not tried more often than others; who asks for something else knows
 * nothing of it.
 *
 * A look counts for a second from when it began; where looking takes longer than a quarter of that,
 * for four times as long as it took, or there would be nothing but looking. Whoever waits for a
 * look is served by it if it counts for him when he came.
 *
 * A path is gone through from the source on: each directory on the way is looked at, and must show
 * the next name as a directory. So what is hidden cannot be entered, what is below a directory that
 * has vanished neither, and a directory that was renamed is found where it is now. Directories of
 * our making (`made`) lie in the layout of the one above.
 *
 * The lock is for the table, is never held across I/O, and no other one is taken under it.
 *
 * Something that is told of changes (inotify) would have its place in is_fresh (look.c): a
 * directory of which all is watched, and of which nothing was told, need not be looked at again. */
#ifndef LIVE_LIVE_H
#define LIVE_LIVE_H

#include "live/directories.h"

#include <pthread.h>

#define LIVE_FRESH_NS UINT64_C(1000000000)

struct unshard_tree {
    struct unshard_checkpoint *place; /* has no nodes; const after opening */
    pthread_mutex_t lock;
    pthread_cond_t looked;          /* a look has ended */
    struct directories directories; /* under the lock, as what follows */
    struct directory *first_look;   /* of those under way, in the order in which they began */
    struct directory **looks_end;
    size_t most, most_bytes; /* what is kept of directories */
    uint64_t (*clock)(void); /* nanoseconds that never go back; a test may set another one */
};

/* A look at the directory begins, or has ended: what unshard_tree_looks tells of. The caller has
 * the lock. live_look_begins returns the time. */
uint64_t live_look_begins(struct unshard_tree *tree, struct directory *directory);
void live_look_ends(struct unshard_tree *tree, struct directory *directory);

/* Whether a directory, the source's layout, is that of one model. */
bool live_is_one_model(const struct unshard_tree *tree, const struct unshard_checkpoint *root);

#endif
