/* What discovery finds out about a checkpoint, and what views and engine work from. Plain data,
 * built once by tree/discovery.c and view/planner.c, immutable afterwards. */
#ifndef TREE_MODEL_H
#define TREE_MODEL_H

#include "base/arena.h"
#include "base/string_map.h"
#include "digest/expectation.h"
#include "tree/header_record.h"
#include "tree/permissions.h"
#include "unshard.h"
#include "view/extent_map.h"

#include <stdatomic.h>

struct format;

#define NO_COMPONENT UINT32_MAX

/* A file that is longer, or says that it is, is none: it is failed, and nothing of it is shown. */
#define CHECKPOINT_MAX_FILE_BYTES (UINT64_C(1) << 46)

struct gathered;
struct parsed_list;

/* A regular file below the source that some view shows. */
struct source_file {
    const char *path; /* relative to the source, as the tree shows it */
    /* Not NULL: no file on disk but tensors that are put together from the bytes of others, which
     * are not contiguous there. path says so, for messages; the fields up to gid are of no use but
     * for size. No shard of a component is such a file. */
    const struct gathered *gathered;
    uint64_t size; /* as found; what changes later is an error of its chunks */
    int64_t mtime_ns, ctime_ns;
    uint64_t device, inode;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint32_t component; /* NO_COMPONENT: not a shard */
    bool as_is;         /* it is shown as it is on disk, whatever it holds: it may become another
                         * file, and its view with it, though it is a shard */
    bool failed;        /* unusable from the start; "truncated": its last bytes are missing,
                         * views ask for more than size */
    const struct unshard_error *error;        /* why, when failed; else NULL */
    const struct expectation *expectation;    /* NULL: no digest of it is known */
    const struct format *format;              /* its header was read as; NULL: it was not */
    XXH128_hash_t layout;                     /* of the tensors that its header describes */
    const struct header_piece *header_pieces; /* what was read to learn that */
    uint32_t header_piece_count;
};

static inline bool source_file_is_too_large(const struct source_file *file)
{
    return file->size > CHECKPOINT_MAX_FILE_BYTES;
}

/* A shard set (or single weight file) that loads as one. */
struct component {
    const char *name;       /* "transformer", "transformer (fp16)", "." for the root */
    const char *directory;  /* relative to the source, "" for the root */
    const char *view_name;  /* file name of the merged view in the directory */
    const char *index_name; /* name under which the index is shown, or NULL */
    const char *format;     /* "safetensors", later others */
    const char *prefix;     /* of a component that is one of several in its files: what the names
                             * of its tensors begin with there, and not here; else NULL */
    size_t prefix_length;
    uint32_t *files; /* numbers of its source files in shard order */
    uint32_t file_count;
    uint32_t view;       /* UNSHARD_NO_VIEW only when its name is taken, or when its files are shown
                          * themselves: several of them with layout=shards, or PyTorch files that cannot
                          * be read. When the layout of a failed component is known, reads of what is
                          * bad fail; else all reads do */
    uint32_t index_view; /* UNSHARD_NO_VIEW: there is none */
    const char *view_path; /* where its file is, or would be; NULL: it has several */
    uint64_t bytes;        /* size of the view, or of its files */
    uint64_t tensor_count;
    bool failed;
    struct unshard_error error; /* when failed */
    const char **notes;         /* things worth a line in the status; not errors */
    uint32_t note_count;
    unsigned load_order; /* in which a pipeline loads it; ties by directory name */
};

struct view {
    const char *path; /* below the mount point */
    uint64_t size;
    struct extent_map map;
    uint32_t component; /* NO_COMPONENT for other files */
    uint32_t file;      /* that is shown as it is, also when it is empty; else EXTENT_LITERAL */
    uint32_t node;
    const struct unshard_node *shown_as; /* in a registry: of the layout that it is from */
    bool lent;                           /* in a registry: the map is that of a checkpoint */
    bool prefetch;   /* part of what prefetch=all fills: files of weights, merged where they are */
    bool unlisted;   /* as its node says */
    bool replaced;   /* it is shown beside a merged file that holds the same: not exported */
    bool added;      /* there is no file of its name on disk */
    bool unreadable; /* its layout is not known: the map is empty, and every read fails */
};

/* A file that a list of digests or a manifest names and that is not there. */
struct missing_file {
    const char *path;
    const char *origin; /* as in struct expected_digest */
};

/* A file below a directory that one of its components takes: an index may name such. */
struct member_below {
    const char *path;
    bool unlisted;                     /* its own directory does not list it */
    bool hidden;                       /* no file: a symlink to nowhere, which is not shown */
    const struct unshard_error *error; /* why it cannot be used; NULL: it can */
};

/* What a directory leaves to those below it, see tree/inherited.h. */
struct inherited {
    const char **lists; /* paths of files with digests of such as are below it */
    struct member_below *taken;
    struct parsed_list **parsed; /* malloc'd, with one held for each: large ones of the lists */
    uint32_t list_count, taken_count, parsed_count;
    uint64_t hash; /* of what is said here */
};

struct trace;

struct unshard_checkpoint {
    struct arena arena; /* owns every string and array below */
    char *source;       /* absolute path */
    int source_fd;      /* O_PATH or O_RDONLY directory; every file is opened relative to it */
    dev_t cover;        /* of what is mounted over the source (covered.h); 0: nothing is */
    bool borrowed;      /* source, source_fd and repository are another checkpoint's */
    struct unshard_view_options options;
    const char *repository; /* absolute path of the hub cache repository that the source is, or lies
                             * in; or NULL */
    struct source_file *files;
    struct component *components;
    struct view *views;
    struct unshard_node *nodes;
    const char **notes;             /* about the whole checkpoint */
    struct unshard_error *problems; /* of the checkpoint, not of a component: files of digests that
                                     * cannot be used, or only in part */
    struct missing_file *missing;
    /* Of one directory that is laid out. */
    struct inherited inherited;        /* by those below it */
    const char **load_order;           /* what model_index.json in it names, in that order */
    const struct trace *trace;         /* what it was made from */
    struct unshard_checkpoint *origin; /* it is a copy of that one, which it holds, but for some
                                        * attributes; or NULL */
    uint32_t load_order_count;

    uint32_t file_count, component_count, view_count, node_count;
    XXH128_hash_t *file_identities, *view_identities; /* see identity.h; NULL: none were made */
    uint32_t file_room, view_room; /* how many files and views there may be one day; 0: those that
                                    * there are */
    uint32_t note_count, problem_count, missing_count;
    atomic_uint holders; /* of a layout, but for the first one; the last field, see retouch.c */
};

/* The first file from number `from` on that the view shows bytes of, or would if it had any;
 * EXTENT_LITERAL: none. O(log n). */
static inline uint32_t view_next_file(const struct view *view, uint32_t from)
{
    if (view->map.count > 0)
        return extent_map_next_source(&view->map, from);
    return view->file >= from ? view->file : EXTENT_LITERAL;
}

/* What is kept of each file or view is made for so many. */
static inline uint32_t checkpoint_file_room(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->file_room != 0 ? checkpoint->file_room : checkpoint->file_count;
}
static inline uint32_t checkpoint_view_room(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->view_room != 0 ? checkpoint->view_room : checkpoint->view_count;
}

/* Opens a source of which nothing is looked at but that it is a directory: a checkpoint without
 * nodes, of which directories can be laid out. directory: a descriptor of it, which stays the
 * caller's, or negative. Owned by the caller, unshard_checkpoint_close. Errors: it is no readable
 * directory, or memory. */
int checkpoint_place_open(const char *source, int directory,
                          const struct unshard_view_options *options,
                          struct unshard_checkpoint **out, struct unshard_error *error);
/* Follows the path of the source when it leads to another directory now: what is opened from now on
 * is of that one. 1 then, 0: it is the same, or a negative errno: nothing has changed. Blocks on
 * I/O. Thread-safe. */
int checkpoint_place_follow(const struct unshard_checkpoint *place);

/* What counts for a directory that is laid out and neither lies in it nor is asked for by a path of
 * its own. Zero-initialised for the source itself. */
struct layout_context {
    const struct unshard_checkpoint *above;    /* the directory that it is in, laid out */
    const struct unshard_checkpoint *snapshot; /* of .no_exist/COMMIT, or a directory below: the one
                                                * in snapshots/COMMIT that corresponds; or NULL */
    const char *split;                         /* see struct unshard_view_options */
};
/* A number that is the same as long as all of that is. */
uint64_t layout_context_hash(const struct layout_context *context);

/* Lays out one directory of the place's source, given by its path relative to that, as it is on
 * disk now: *out has its files, views and components, and in its tree the directory (node 0) with
 * what is in it; directories in there have no children but those of our making. All paths are
 * relative to the source. Blocks on I/O. Thread-safe. The caller holds *out
 * (unshard_layout_release), which `place` must outlive; what the context has is not needed any
 * more. Errors: it cannot be listed
 * ("unreadable"), or memory. */
int checkpoint_lay_out(const struct unshard_checkpoint *place, const struct layout_context *context,
                       const char *directory, struct unshard_checkpoint **out,
                       struct unshard_error *error);
/* Looks again at all that a layout was made from, but for its context. *out, which the caller
 * holds: the layout itself, when all is the same; a copy with other attributes, when nothing has
 * changed but size, times, owner and permissions of files that are shown as they are and of which
 * no more was read, or of directories; NULL: it is to be laid out anew. Blocks on I/O. Thread-safe.
 * 0 or -ENOMEM. */
int checkpoint_look_again(struct unshard_checkpoint *layout, struct unshard_checkpoint **out);
/* Bytes that a layout takes, about. */
size_t layout_memory(const struct unshard_checkpoint *layout);
/* Whether somebody else than the caller holds it. */
static inline bool layout_is_shared(const struct unshard_checkpoint *layout)
{
    return atomic_load_explicit(&layout->holders, memory_order_relaxed) > 0;
}

/* Opens a source file for reading, with the same symlink policy as discovery: no path leaves the
 * checkpoint (but for the blobs of its hub cache repository) unless follow_symlinks. Adds `flags`
 * (O_DIRECT or 0) to O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY. Returns a descriptor or a
 * negative errno; refuses what is no regular file with -EINVAL. May block on I/O, and waits some
 * seconds when all descriptors are in use, in the process or the system. Thread-safe. */
int checkpoint_open_file(const struct unshard_checkpoint *checkpoint, uint32_t file, int flags);
/* The same of a path, without that wait: -EMFILE, -ENFILE. */
int checkpoint_open_path_now(const struct unshard_checkpoint *checkpoint, const char *path,
                             int flags);

#endif
