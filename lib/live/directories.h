/* SPDX-License-Identifier: MIT
 *
 * The directories of a tree that somebody has looked at, by their paths. None of it is thread-safe:
 * the caller has the lock of the tree. */
#ifndef LIVE_DIRECTORIES_H
#define LIVE_DIRECTORIES_H

#include "tree/model.h"

/* One directory. What the states are stands in live.h. */
struct directory {
    struct directory *next;          /* in the same slot */
    struct directory *newer, *older; /* by when somebody asked for them */
    struct unshard_checkpoint
        *layout;                 /* in force; NULL: the last look has failed, or none has ended */
    int result;                  /* of that look; a negative errno when it has failed */
    bool known;                  /* a look has ended */
    bool looking;                /* a thread is at it */
    uint64_t look_ns;            /* ... since then */
    struct directory *next_look; /* ... and the one at this began next */
    unsigned users;              /* threads that have a pointer to this */
    uint64_t context;            /* layout_context_hash of the last look */
    uint64_t began_ns, fresh_ns; /* when that began, and for how long from then on it counts */
    size_t bytes;                /* of the layout */
    uint64_t hash;               /* of the path */
    char path[];
};

/* Zero-initialised is empty. */
struct directories {
    struct directory **slots; /* a power of two of them */
    struct directory *newest, *oldest;
    size_t slot_count, count;
    size_t bytes; /* of all layouts */
    uint64_t seed;
};

/* The directory at a path: NULL when it is not known. */
struct directory *directories_find(const struct directories *directories, const char *path);
/* The same, which is made when it is not known and becomes the newest; NULL: no memory. */
struct directory *directories_get(struct directories *directories, const char *path);
/* Gives a directory another layout, which is the table's from now on, or none. What it was is
 * released. */
void directories_set_layout(struct directories *directories, struct directory *directory,
                            struct unshard_checkpoint *layout);
/* Forgets what lies below `path` and is not in a directory that its layout shows, unless it is in
 * use. */
void directories_forget_vanished(struct directories *directories, const char *path,
                                 const struct unshard_checkpoint *layout);
/* Forgets those that nobody has asked for longest, as long as there are more than `most` or their
 * layouts take more than `most_bytes`; but none that is in use or whose layout somebody else holds,
 * and not the last few, however large they are. */
void directories_shrink(struct directories *directories, size_t most, size_t most_bytes);
/* Forgets all. */
void directories_free(struct directories *directories);

#endif
