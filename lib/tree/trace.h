/* SPDX-License-Identifier: MIT
 *
 * What one directory was laid out from: everything on disk that discovery has looked at, by what it
 * has found there. As long as looking again finds the same, the layout is what it would be. All of
 * it comes out of the scan, so it is what the layout was really made from, whatever has changed
 * meanwhile. */
#ifndef TREE_TRACE_H
#define TREE_TRACE_H

#include "tree/listing.h"
#include "tree/model.h"

/* What a change of a name's time, size, owner and permissions means. */
enum traced_use {
    TRACED_READ,      /* the directory is to be laid out anew */
    TRACED_FILE,      /* the attributes of a file that is shown as it is */
    TRACED_DIRECTORY, /* the attributes of a directory */
    TRACED_UNUSED     /* nothing */
};

/* A name in the directory; their order is that of names. */
struct traced_child {
    struct seen seen;
    enum traced_use use;
    uint32_t file; /* TRACED_FILE: its source file */
};

/* A name elsewhere. */
struct traced_name {
    const char *directory; /* NULL: the name is an absolute path */
    const char *name;
    struct seen seen; /* of a directory only what it is */
};

/* Another directory that was listed. */
struct traced_listing {
    const char *path;
    uint64_t seen; /* of all names */
};

struct trace {
    const char *path; /* of the directory */
    struct seen self;
    struct traced_child *children;
    struct traced_name *names;
    struct traced_listing *listings;
    uint32_t child_count, name_count, listing_count;
    bool self_is_used; /* something in it has the times and permissions of the directory */
    /* A file was changed so shortly before that another change of it may have the same time. */
    bool young;
    bool unread; /* storage did not give all that was to be read, and may another time */
};

/* What the directory is now. */
struct retouch {
    const struct stat *self;
    const struct look *children;
};
/* A copy of a layout with the attributes of now. NULL: no memory. */
struct unshard_checkpoint *layout_retouch(struct unshard_checkpoint *layout,
                                          const struct retouch *now);

#endif
