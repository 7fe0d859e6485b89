/* SPDX-License-Identifier: MIT
 *
 * The discovery step that finds out what is known of the content of the source files:
 *   expectations.c      the step, and source files for what no view needs
 *   expectations_hub.c  what huggingface_hub knows: blobs, download metadata, tree listings
 *   expectations_list.c manifests and lists of digests that lie beside the files
 *   parsed_list.c       one of these, parsed; for all directories below its own, too */
#ifndef TREE_EXPECTATIONS_H
#define TREE_EXPECTATIONS_H

#include "tree/claims.h"
#include "tree/discovery.h"
#include "tree/problems.h"

struct missing_list {
    struct missing_file *items; /* malloc'd */
    uint32_t count, capacity;
};

struct gathering {
    struct discovery *discovery;
    struct claim_list claims;
    struct problem_list problems;
    struct missing_list missing;
    uint64_t list_bytes; /* of the lists and manifests that were read so far */
};

/* Where digests are found. 0 or -ENOMEM; anything else wrong becomes a problem or a note. Read
 * small bounded files below the source or its hub cache repository, several at once. */
int expectations_from_hub(struct gathering *gathering);
int expectations_from_lists(struct gathering *gathering);

/* Where the file called `name` below a directory is, or would be. Lists of whole repositories name
 * thousands of files elsewhere, of which not one is looked at for that. */
enum gathering_place {
    PLACE_ELSEWHERE, /* nothing is known of it, and nothing need be */
    PLACE_NEAR,      /* in a directory below that in focus: it may be a shard of what is here */
    PLACE_HERE       /* it is laid out, and missing if it is not there */
};
enum gathering_place gathering_place_of(const struct gathering *gathering, uint32_t directory,
                                        const char *name);
/* Whether it lies below the directory in focus, and not in that itself; with a scan of the whole
 * nothing does. */
bool gathering_is_below(const struct gathering *gathering, uint32_t directory, const char *name);
/* The source file of the regular file at `name` below the directory, or SCAN_NONE. */
uint32_t gathering_find_file(const struct gathering *gathering, uint32_t directory,
                             const char *name);
/* "PATH" or "PATH line N" (line > 0) in the arena of the checkpoint, with odd bytes escaped: for
 * origins and messages. NULL when memory is short. */
const char *gathering_origin(const struct gathering *gathering, const char *path, uint32_t line);

#endif
