/* SPDX-License-Identifier: MIT
 *
 * The source directory as it is on disk: every entry that a mount might show, and those that it may
 * not, with the reason. */
#ifndef TREE_SCAN_H
#define TREE_SCAN_H

#include "tree/model.h"
#include "tree/notes.h"

#define SCAN_MAX_DEPTH 16
/* Directories that link to each other have paths without end. Through one symlink each directory is
 * seen as often as it is linked; through more it is shown in so many places. */
#define SCAN_MAX_LINKED 8U
#define SCAN_MAX_ENTRIES 1000000U
#define SCAN_NONE UINT32_MAX

enum scan_kind {
    SCAN_DIRECTORY,
    SCAN_FILE,
    SCAN_SYMLINK, /* dangling, shown as it is */
    SCAN_EXCLUDED /* never shown; problem says why */
};

struct scan_entry {
    const char *name, *path; /* path relative to the source, "" for the source itself */
    const char *target;      /* what a symlink says, else NULL */
    enum scan_kind kind;
    uint32_t parent, first_child, child_count; /* children are contiguous and sorted by bytes */
    unsigned depth;
    bool through_symlink;
    uint8_t links;  /* symlinks to directories that lead there; 255: or more */
    bool set_aside; /* its name, or that of a directory above it, begins with a dot: shown as it
                     * is, and no part of a component but for .metadata */
    uint64_t size, device, inode;
    int64_t mtime_ns, ctime_ns;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    const struct unshard_error *problem; /* of SCAN_SYMLINK and SCAN_EXCLUDED, else NULL */

    /* Set by later steps. */
    bool claimed;  /* belongs to a component */
    bool shared;   /* has been claimed twice */
    bool whole;    /* is shown as it is, though it was one of several files of a component */
    bool hidden;   /* not shown under its name: something else is, or nothing */
    bool unlisted; /* shown to who opens its name, not to who lists the directory */
    bool replaced; /* a merged file that is listed holds what it holds */
    uint32_t file; /* number of its source file, or SCAN_NONE */
    uint32_t view; /* that shows it under its name, or UNSHARD_NO_VIEW */
};

struct scan {
    struct scan_entry *entries; /* 0 is the source; a parent has a lower number than its children */
    uint32_t count, capacity;
};

/* Reads the tree below checkpoint->source_fd. Strings live in checkpoint->arena. What is left out
 * is told in notes. Errors: the source itself cannot be read, or memory. Blocks on I/O. */
int scan_tree(struct unshard_checkpoint *checkpoint, struct note_list *notes, struct scan *out,
              struct unshard_error *error);
void scan_free(struct scan *scan);

/* Adds a directory that is not on disk, with the times and permissions of its parent; scan_child
 * does not find it. Its number, or SCAN_NONE when memory is short. Entries may move. */
uint32_t scan_add_directory(struct scan *scan, struct arena *arena, uint32_t parent,
                            const char *name);

/* The child of a directory called by the first `length` bytes of name, or SCAN_NONE. */
uint32_t scan_child(const struct scan *scan, uint32_t directory, const char *name, size_t length);
/* The entry at a relative path below a directory, or SCAN_NONE. */
uint32_t scan_find(const struct scan *scan, uint32_t directory, const char *path);

#endif
