/* SPDX-License-Identifier: MIT
 *
 * The source directory as it is on disk: every entry that a mount might show, and those that it may
 * not, with the reason.
 *
 * A scan is of the whole tree, or has one directory in focus. Then all names of that directory are
 * known, and of the others what is asked for: the directories on the way to it, single names in
 * these (scan_child looks at them when they are asked for), and directories below the focus as a
 * whole. What the steps of discovery go through in turn is scan_is_near. */
#ifndef TREE_SCAN_H
#define TREE_SCAN_H

#include "tree/listing.h"
#include "tree/model.h"
#include "tree/notes.h"

#define SCAN_MAX_DEPTH 16
/* Directories that link to each other have paths without end. Through one symlink each directory is
 * seen as often as it is linked; through more it is shown in so many places. */
#define SCAN_MAX_LINKED 8U
#define SCAN_MAX_ENTRIES 1000000U
/* The same of what is seen by going from one directory to the next: symlinks to directories on a
 * path. */
#define SCAN_MAX_LINKS 3U
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
    /* Of a directory of which not all names are known: those that are, as a list. */
    uint32_t first_single, next_single; /* 0: none */
    unsigned depth;
    bool listed; /* a directory of which all names are known */
    bool near;   /* a directory in focus, on the way there, or listed below it */
    bool made;   /* scan_add_directory: it is not on disk */
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
    struct seen seen;                    /* by which all of the above is known */

    /* Set by later steps. */
    const struct unshard_error *damage; /* of a file: why it cannot be used, by what lies above */
    bool claimed;                       /* belongs to a component */
    bool shared;                        /* has been claimed twice */
    bool whole;    /* is shown as it is, though it was one of several files of a component */
    bool hidden;   /* not shown under its name: something else is, or nothing */
    bool unlisted; /* shown to who opens its name, not to who lists the directory */
    bool replaced; /* a merged file that is listed holds what it holds */
    bool told_of;  /* what is known of its content depends on its times */
    bool reaches;  /* a list of digests that has some of what is in directories below the focus */
    uint32_t file; /* number of its source file, or SCAN_NONE */
    uint32_t view; /* that shows it under its name, or UNSHARD_NO_VIEW */
};

struct scanner;

/* A name that was looked at and is not there. */
struct scan_absent {
    const struct scan_absent *next;
    const char *name;
    uint32_t directory;
};

/* A file outside of the source that was looked at. */
struct scan_outside {
    const struct scan_outside *next;
    const char *path; /* absolute */
    struct seen seen;
};

struct scan {
    /* 0 is the source; a parent has a lower number than its children. They never move. */
    struct scan_entry *entries;
    uint32_t count;
    uint32_t focus;          /* SCAN_NONE: none, all is near */
    struct scanner *scanner; /* who looks at more; NULL: all is known */
    /* Of a scan with a focus. */
    const struct scan_absent *absent;
    const struct scan_outside *outside;
    int64_t began_ns; /* by the clock that files have their times from */
};

/* Reads the tree below checkpoint->source_fd. Strings live in checkpoint->arena. What is left out
 * is told in notes. Errors: the source itself cannot be read, or memory. Blocks on I/O. */
int scan_tree(struct unshard_checkpoint *checkpoint, struct note_list *notes, struct scan *out,
              struct unshard_error *error);
/* The same of one directory, at a path relative to the source. Notes tell of nothing outside of it.
 * Errors: also "unreadable" with the errno for which the directory cannot be listed (ENOENT,
 * ENOTDIR...). */
int scan_focus(struct unshard_checkpoint *checkpoint, const char *path, struct note_list *notes,
               struct scan *out, struct unshard_error *error);
void scan_free(struct scan *scan);

/* A directory whose files discovery goes through: those near the focus, or all. */
static inline bool scan_is_near(const struct scan *scan, uint32_t entry)
{
    return scan->entries[entry].kind == SCAN_DIRECTORY &&
           (scan->focus == SCAN_NONE || scan->entries[entry].near);
}
/* A directory that is laid out: that in focus, or any. */
static inline bool scan_is_focus(const struct scan *scan, uint32_t entry)
{
    return scan->entries[entry].kind == SCAN_DIRECTORY &&
           (scan->focus == SCAN_NONE || scan->focus == entry);
}

/* Adds a directory that is not on disk, with the times and permissions of its parent; scan_child
 * does not find it. Its number, or SCAN_NONE when memory is short. Entries may move. */
uint32_t scan_add_directory(struct scan *scan, struct arena *arena, uint32_t parent,
                            const char *name);

/* The child of a directory called by the first `length` bytes of name, or SCAN_NONE. May look at
 * it, which blocks, where not all is known; not thread-safe then. */
uint32_t scan_child(struct scan *scan, uint32_t directory, const char *name, size_t length);
/* The entry at a relative path below a directory, or SCAN_NONE. As above; directories below the
 * focus are listed. */
uint32_t scan_find(struct scan *scan, uint32_t directory, const char *path);
/* As scan_child, of what is known; SCAN_NONE also where the directory is not listed. */
uint32_t scan_listed_child(const struct scan *scan, uint32_t directory, const char *name,
                           size_t length);
/* Remembers that a file outside of the source is going to be read, by its absolute path. 0 or
 * -ENOMEM. */
int scan_look_outside(struct scan *scan, const char *path);
/* Has all names of a directory known, and its children at first_child. What cannot be listed has
 * none. Single names of it must not have been looked at. 0 or -ENOMEM. */
int scan_list(struct scan *scan, uint32_t directory);

#endif
