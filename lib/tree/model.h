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
    uint32_t node;
    bool prefetch;   /* part of what prefetch=all fills: files of weights, merged where they are */
    bool unlisted;   /* as its node says */
    bool replaced;   /* it is shown beside a merged file that holds the same: not exported */
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
    const struct unshard_error *error; /* why it cannot be used; NULL: it can */
};

/* What a directory leaves to those below it, see tree/inherited.h. */
struct inherited {
    const char **lists; /* paths of files with digests of such as are below it */
    struct member_below *taken;
    struct parsed_list **parsed; /* malloc'd, with one held for each: large ones of the lists */
    uint32_t list_count, taken_count, parsed_count;
};

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
    struct inherited inherited; /* of one directory that is laid out, by those below it */
    struct permissions to_list; /* who may list all directories, see permissions.h */
    uint32_t file_count, component_count, view_count, node_count;
    uint32_t note_count, problem_count, missing_count;
};

/* Lays out one directory of the checkpoint's source, given by its path relative to that, as it is
 * on disk now: *out has its files, views and components, and in its tree the directory (node 0)
 * with what is in it; directories in there have no children but those of our making. All paths are
 * relative to the source. above: the directory that it is in, laid out; NULL for the source itself.
 * Blocks on I/O. Thread-safe. The caller owns *out, which `place` must outlive; `above` is not
 * needed any more. Errors: it cannot be listed ("unreadable"), or memory. */
int checkpoint_lay_out(const struct unshard_checkpoint *place,
                       const struct unshard_checkpoint *above, const char *directory,
                       struct unshard_checkpoint **out, struct unshard_error *error);

/* Opens a source file for reading, with the same symlink policy as discovery: no path leaves the
 * checkpoint (but for the blobs of its hub cache repository) unless follow_symlinks. Adds `flags`
 * (O_DIRECT or 0) to O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY. Returns a descriptor or a
 * negative errno; refuses what is no regular file with -EINVAL. May block on I/O, and waits some
 * seconds when all descriptors are in use, in the process or the system. Thread-safe. */
int checkpoint_open_file(const struct unshard_checkpoint *checkpoint, uint32_t file, int flags);
/* The same without that wait: -EMFILE, -ENFILE. */
int checkpoint_open_file_now(const struct unshard_checkpoint *checkpoint, uint32_t file, int flags);

#endif
