/* SPDX-License-Identifier: MIT
 *
 * Directories of the source as they are on disk, several at once: on storage with latency what
 * counts is how many requests are under way. */
#ifndef TREE_LISTING_H
#define TREE_LISTING_H

#include "tree/model.h"

#include <dirent.h>
#include <sys/stat.h>

/* One directory. */
struct listing {
    const char *path; /* relative to the source; set by the caller, who owns it */
    DIR *directory;   /* open until listings_free */
    char **names;     /* sorted by bytes, without . and .. */
    size_t name_count, capacity;
    bool cut;   /* there are more */
    int result; /* 0, or a negative errno for which it could not be listed */
};

/* One name in it. */
struct look {
    const struct listing *listing; /* set by the caller, for looks_take */
    const char *name;              /* likewise, one of the names of the listing */
    int result;                    /* of looking at it: 0 or a negative errno */
    struct stat status;            /* of the name itself */
    char *target;                  /* what a symlink says, malloc'd: the caller's; else NULL */
    int target_result;             /* ... and whether it leads somewhere, as path_policy_resolve */
    struct stat target_status;
};

/* What a look has found, in numbers that are the same as long as it is: what there is under the
 * name (0: nothing), of a file only that it is one; and the rest: of a file all, of a directory its
 * time and permissions. */
struct seen {
    uint64_t what, rest;
};
struct seen look_seen(const struct look *look);

/* How many directories to list at a time: each takes a descriptor. From 1 to LISTINGS_AT_ONCE. */
#define LISTINGS_AT_ONCE 64U
uint32_t listings_at_once(void);
/* Lists all of them: the rest of each is filled in, with at most `most` names in all. False: there
 * are more than that, and nothing has been listed; one alone is `cut` then. Blocks; starts and
 * joins threads. */
bool listings_read(const struct unshard_checkpoint *checkpoint, struct listing *listings,
                   uint32_t count, size_t most);
void listings_free(struct listing *listings, uint32_t count);

/* Looks at all of these names, symlinks too. -ENOMEM is a result like any other. Blocks; starts and
 * joins threads. */
void looks_take(const struct unshard_checkpoint *checkpoint, struct look *looks, uint32_t count);
/* Looks at one name in a directory, given by its path, of which nothing else is known. Blocks. */
void look_take(const struct unshard_checkpoint *checkpoint, const char *directory,
               struct look *look);
/* Looks at a file outside of the source, its name is an absolute path; no symlink is followed. */
void look_outside(struct look *look);

#endif
