/* SPDX-License-Identifier: MIT
 *
 * The steps from a directory to a checkpoint, each in a file of its own:
 *   scan.c       what is on disk
 *   early_reads.c  the small files that the next steps will want
 *   grouping*.c  which files form a component (names and index files only)
 *   headers.c    what tensors they hold (reads headers, several at once)
 *   outcome.c    what comes of each group: merged, as it is, or damaged
 *   added_views.c  which PyTorch files are shown as safetensors besides
 *   splitting.c  which files hold several components, and the views of each
 *   components.c the views of components
 *   expectations.c  the digests that are known of the files
 *   inherited.c  what one directory leaves to those below it
 *   hub_markers.c  what a hub cache says to be missing and the mount adds
 *   tree.c       the views of all other files, and the nodes
 *   trace.c      what one directory was made from
 * What lives only during discovery is here; what stays is in model.h. */
#ifndef TREE_DISCOVERY_H
#define TREE_DISCOVERY_H

#include "formats/format.h"
#include "formats/index_file.h"
#include "tree/early_reads.h"
#include "tree/headers.h"
#include "tree/model.h"
#include "tree/notes.h"
#include "tree/scan.h"
#include "tree/shard_name.h"

/* A shard that an index or the numbers of its neighbours ask for. */
struct absent_shard {
    const char *path;
    uint32_t file;                     /* its source file, which is failed from the start */
    const struct unshard_error *error; /* in the arena of the checkpoint */
};

/* A component to be. Strings live in the checkpoint's arena. */
struct candidate {
    uint32_t directory; /* scan entry */
    const char *stem, *variant, *base, *extension;
    const char *merged_name;
    const char *index_name; /* under which an index is shown; NULL without one */
    const struct format *format;
    bool passthrough;   /* one complete file, shown as it is */
    bool perhaps;       /* shown as it is when its file turns out not to be weights */
    bool unlisted_view; /* what is added for it is opened by name, not listed */
    bool as_files;      /* layout=shards: each of its files is shown as it is, and nothing else */
    uint32_t *members;  /* scan entries in shard order */
    uint32_t member_count;
    struct absent_shard *absent; /* shards that belong to it and cannot be used */
    uint32_t absent_count;
    uint32_t absent_seen; /* also those that there was no room for */
    uint32_t missing;     /* of these, names that are not there at all */
    bool unfinished;      /* ... and one of these is being downloaded */
    bool no_set;          /* `failed`, since its files cannot be of one set */
    uint32_t beside;      /* what is there under its merged name and stays, or SCAN_NONE */
    uint32_t *replaced; /* scan entries that are of no use, or lead nowhere, beside its own file */
    uint32_t replaced_count;
    uint32_t index_entry; /* scan entry of its index, or SCAN_NONE */
    struct index_file index;
    const struct described_set *described; /* of a set that is: members are its files, in order */
    uint32_t description;                  /* then: scan entry of what describes it */
    struct arena index_arena;              /* of `index` and `described` */
    struct note_list notes;
    bool failed;
    struct unshard_error error;
    struct component_prefixes *prefixes; /* of the components that it was seen to hold, or NULL */
    bool split_on_demand; /* components of it were asked for by name: these are prefetched */
    unsigned load_order;
    uint32_t component;     /* its number, once components are built */
    struct header *headers; /* of its members, in their order; NULL before they are read */
};

/* A component that is shown beside the file that holds it with others. */
struct split {
    const struct candidate *candidate;
    uint32_t directory; /* scan entry of its own directory, made by us */
    const char *prefix; /* of its tensors' names */
    size_t prefix_length;
};

/* A file, or directory, that the tree shows and that is not on disk under this name. */
struct added_file {
    uint32_t directory; /* scan entry */
    const char *name;
    uint32_t subdirectory; /* of a directory: its scan entry, the rest is not used; of a file: 0 */
    uint32_t view;
    int64_t mtime_ns;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    bool unlisted;
};

struct discovery {
    struct unshard_checkpoint *checkpoint;
    struct memory_budget budget;          /* for what all files of the checkpoint say of tensors */
    size_t file_capacity;                 /* of checkpoint->files */
    const struct layout_context *context; /* of one directory that is laid out */
    struct scan scan;
    struct early_reads early;
    struct note_list notes;        /* about the checkpoint */
    struct candidate **candidates; /* each stays where it is until discovery ends */
    uint32_t candidate_count, candidate_capacity;
    uint32_t absent_count;  /* of all of them */
    struct header *headers; /* of all members of candidates that have not failed */
    uint32_t header_count;
    struct split *splits;
    uint32_t split_count, split_capacity;
    struct added_file *added;
    uint32_t added_count;
};

/* Finds the candidates of all directories and marks scan entries claimed and hidden. Reads index
 * files. Trouble with one component is kept in it. 0 or -ENOMEM. */
int grouping_find(struct discovery *discovery, struct unshard_error *error);

/* Adds a candidate that is zero but for what *like says; NULL without memory. */
struct candidate *discovery_add_candidate(struct discovery *discovery,
                                          const struct candidate *like);
void candidate_free(struct candidate *candidate);

/* Sets load_order of every candidate from model_index.json and sorts them by it. 0 or -ENOMEM. */
int load_order_apply(struct discovery *discovery, struct unshard_error *error);

/* Notes a shard of the candidate that cannot be used, if there is room for more, and makes the
 * candidate failed by it. 0 or -ENOMEM. */
int candidate_add_absent(struct discovery *discovery, struct candidate *candidate, const char *path,
                         const struct unshard_error *error);

/* Makes the file failed, with a copy of the error. */
void discovery_fail_file(struct discovery *discovery, struct source_file *file,
                         const struct unshard_error *error);
/* Makes a source file of a scan entry, once. SCAN_NONE when memory is short. */
uint32_t discovery_add_file(struct discovery *discovery, uint32_t entry);
/* Makes a source file of tensors that are gathered, a copy of *gathered. False: no memory. */
bool discovery_add_gathered(struct discovery *discovery, const struct gathered *gathered,
                            const char *path, uint32_t component);
/* The first member's entry with the times and permissions of what is made of all members, of which
 * there is one at least: the newest one's, and who may read all of them. */
struct scan_entry candidate_attributes(const struct discovery *discovery,
                                       const struct candidate *candidate);
/* Adds a view and takes the map over; UNSHARD_NO_VIEW when memory is short (the map is freed). path
 * lives in the checkpoint's arena. */
uint32_t discovery_add_view(struct discovery *discovery, const char *path, struct extent_map *map,
                            uint32_t component);
/* Shows the file of a scan entry as it is, `size` bytes of it, and makes its source file. As above.
 */
uint32_t discovery_add_passthrough(struct discovery *discovery, uint32_t entry, uint64_t size,
                                   uint32_t component);

/* Finds which components are to be split off, as options.split has it; needs the headers. 0,
 * -ENOMEM, or -EINVAL when options.split cannot be understood. */
int splitting_find(struct discovery *discovery, struct unshard_error *error);
/* Plans them and their views, after those of the files that hold them. 0 or -ENOMEM. */
int splitting_build(struct discovery *discovery, struct unshard_error *error);

/* Plans the components and their views; needs the headers. 0 or -ENOMEM. */
int components_build(struct discovery *discovery, struct unshard_error *error);

/* Finds what is known of the content of all regular files; each of them becomes a source file. 0 or
 * -ENOMEM. */
int expectations_gather(struct discovery *discovery, struct unshard_error *error);

/* Views of all visible files that have none yet, and the nodes. 0 or -ENOMEM. */
int tree_build(struct discovery *discovery, struct unshard_error *error);

/* Remembers what a directory that is laid out was made from. 0 or -ENOMEM. */
int trace_make(struct discovery *discovery);

/* The file at a scan entry in malloc'd memory, terminated, at most `limit` bytes. 0 or a negative
 * errno, -EFBIG when it is larger. May block on I/O. Thread-safe. */
int discovery_read_file(const struct discovery *discovery, uint32_t entry, uint64_t limit,
                        char **out, size_t *length);
/* The same, out of what was read beforehand if it was. Not thread-safe. */
int discovery_take_file(struct discovery *discovery, uint32_t entry, uint64_t limit, char **out,
                        size_t *length);
/* The same of a descriptor that was just opened; -EINVAL when it is no regular file. */
int discovery_read_fd(int fd, uint64_t limit, char **out, size_t *length);
/* What an error of these means, for a message. */
const char *discovery_why_unread(int result, uint64_t limit, char out[64]);

#endif
