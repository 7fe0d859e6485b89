/* SPDX-License-Identifier: MIT
 *
 * libunshard: a checkpoint directory as merged views, filled by a parallel prefetcher.
 *
 * The library knows nothing of FUSE. An unshard_checkpoint is what a directory looks like through
 * a mount: a tree of nodes whose regular files are views. An unshard_engine reads the bytes of
 * views: it prefetches chunks of shards, checks them and publishes them.
 *
 * Conventions
 * - A function that can fail returns 0 or a negative errno, and fills *error where it takes one.
 * - Offsets and sizes are in bytes, times in nanoseconds since the epoch unless a name says more.
 * - Strings are UTF-8 or whatever bytes the file system holds; none is freed by the caller unless
 *   the contract says so.
 */
#ifndef UNSHARD_H
#define UNSHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UNSHARD_VERSION "0.1.0"

/* ---- errors ---------------------------------------------------------------------------------- */

#define UNSHARD_NO_OFFSET UINT64_MAX

/* Why something failed. Plain data: copied by assignment, owns nothing. */
struct unshard_error {
    const char *code;  /* static word for scripts: "missing", "truncated", "malformed-header"... */
    int errno_value;   /* positive errno behind the failure, 0 when there is none */
    uint64_t offset;   /* byte offset in the file concerned, or UNSHARD_NO_OFFSET */
    int64_t time;      /* when it happened, seconds since the epoch; 0: not stamped yet */
    char message[512]; /* for a person: names file, field and value */
};

/* Fills *error (NULL is allowed) and returns -errno_value, or -EINVAL when that is 0. code must be
 * a string literal. There is no offset and no time; the message becomes what unshard_printable
 * makes of it. Thread-safe. */
int unshard_error_set(struct unshard_error *error, const char *code, int errno_value,
                      const char *format, ...) __attribute__((format(printf, 4, 5)));

/* ---- options --------------------------------------------------------------------------------- */

enum unshard_index { UNSHARD_INDEX_REWRITE, UNSHARD_INDEX_HIDE };
enum unshard_order { UNSHARD_ORDER_SHARD, UNSHARD_ORDER_CANONICAL };
enum unshard_layout { UNSHARD_LAYOUT_MERGED, UNSHARD_LAYOUT_BOTH, UNSHARD_LAYOUT_SHARDS };
enum unshard_pickle { UNSHARD_PICKLE_AUTO, UNSHARD_PICKLE_SAFETENSORS, UNSHARD_PICKLE_ASIS };
enum unshard_verify { UNSHARD_VERIFY_STRICT, UNSHARD_VERIFY_ASYNC, UNSHARD_VERIFY_OFF };
/* OPEN: a component as a whole when a file of it is first opened, see unshard_engine_prefetch. */
enum unshard_prefetch {
    UNSHARD_PREFETCH_ALL,
    UNSHARD_PREFETCH_FOLLOW,
    UNSHARD_PREFETCH_OFF,
    UNSHARD_PREFETCH_OPEN
};

/* How a checkpoint is presented. Zero-initialised is the default. UNSHARD_LAYOUT_SHARDS is the
 * directory as it is on disk: index, order and split say nothing then, pickle only which files are
 * taken for weights. */
struct unshard_view_options {
    enum unshard_index index;
    enum unshard_order order;
    enum unshard_layout layout;
    enum unshard_pickle pickle; /* where PyTorch files are shown as safetensors besides: where that
                                 * misleads no loader, wherever it can be done, nowhere */
    bool follow_symlinks;       /* also follow symlinks that leave the checkpoint */
    bool ignore_manifest;       /* take no digests from unshard-manifest.json: to seal anew */
    /* Which components of files that hold several are shown by themselves, too: NULL or "auto"
     * those that are recognised, "off" none, else "PREFIX[=NAME],...". Read while the checkpoint is
     * opened only. */
    const char *split;
};

/* Whether a value of `split` says something: 0, or -EINVAL with *error, code "bad-option". Pure. */
int unshard_split_check(const char *value, struct unshard_error *error);

struct unshard_keep; /* below */

/* How its bytes are fetched. Zero in a field means the default. */
struct unshard_fetch_options {
    enum unshard_prefetch prefetch;
    enum unshard_verify verify;
    unsigned jobs;               /* requests in flight; 0: adapt to what the source gives */
    uint64_t chunk_bytes;        /* power of two, 64 KiB to 64 MiB; default 2 MiB */
    uint64_t digest_chunk_bytes; /* of what is going to be attached, see
                                  * unshard_digest_chunk_bytes: chunks are as large, where buffers
                                  * allow it */
    uint64_t buffer_bytes;       /* all chunk buffers together; default 256 MiB */
    double
        read_timeout_seconds;  /* a read that gets nothing from storage for so long fails; 0: 300 */
    uint64_t window_bytes;     /* how far to prefetch ahead of readers; 0: from available memory */
    uint64_t budget_bytes;     /* that the page cache may hold of all that is prefetched; 0, or more
                                * than that: from available memory */
    struct unshard_keep *keep; /* where what the engine of the next process must know is kept, and
                                * what that of an earlier one knew is found; NULL: nothing is */
};

/* ---- checkpoint: the tree and its views --------------------------------------------------------
 */

struct unshard_checkpoint;

enum unshard_node_kind { UNSHARD_NODE_DIRECTORY, UNSHARD_NODE_FILE, UNSHARD_NODE_SYMLINK };

#define UNSHARD_NO_VIEW UINT32_MAX

/* One entry of the tree. Node 0 is the root; every other node has a parent with a lower number. The
 * children of a directory are contiguous: first_child .. first_child + child_count - 1, sorted by
 * name. All of it is immutable for the life of the checkpoint. */
struct unshard_node {
    const char *name;
    enum unshard_node_kind kind;
    uint32_t parent;
    uint32_t first_child, child_count;
    uint32_t view;      /* of a file: its view; else UNSHARD_NO_VIEW */
    const char *target; /* of a symlink: what it says; else NULL */
    uint64_t size;      /* of a file: bytes of the view */
    uint64_t inode;     /* stable from mount to mount: derived from the path */
    int64_t mtime_ns;
    mode_t mode; /* type and permission bits, write permission removed */
    uid_t uid;
    gid_t gid;
    bool unlisted; /* opened by its name, but no listing of its directory has it */
    bool made;     /* a directory that is not on disk: it lies in the layout of the one above it */
};

/* Reads the directory `source` and plans its views. Blocks on I/O (headers of all shards are read,
 * several files at once). A bad shard is no error here: its component is failed and says why. On
 * success *out is owned by the caller. Errors: the source is no readable directory, or memory. */
int unshard_checkpoint_open(const char *source, const struct unshard_view_options *options,
                            struct unshard_checkpoint **out, struct unshard_error *error);

/* From now on a file system of this device, which shows this checkpoint, is mounted over the
 * source: that is reached through the descriptor that was opened of it, and by no path. Before an
 * engine is started. */
void unshard_checkpoint_cover(struct unshard_checkpoint *checkpoint, dev_t device);

/* Frees it and all that its functions returned. No engine may still use it. NULL is allowed. */
void unshard_checkpoint_close(struct unshard_checkpoint *checkpoint);

/* The absolute path of the source. Thread-safe, as are all functions on a const checkpoint. */
const char *unshard_checkpoint_source(const struct unshard_checkpoint *checkpoint);
uint32_t unshard_node_count(const struct unshard_checkpoint *checkpoint);
const struct unshard_node *unshard_node(const struct unshard_checkpoint *checkpoint, uint32_t node);
/* The child of directory `parent` called `name`, or NULL. O(log children). */
const struct unshard_node *unshard_node_child(const struct unshard_checkpoint *checkpoint,
                                              uint32_t parent, const char *name);
uint32_t unshard_node_number(const struct unshard_checkpoint *checkpoint,
                             const struct unshard_node *node);
uint32_t unshard_view_count(const struct unshard_checkpoint *checkpoint);
/* Path of a view below the mount point, e.g. "transformer/diffusion_pytorch_model.safetensors". */
const char *unshard_view_path(const struct unshard_checkpoint *checkpoint, uint32_t view);
/* Whether the layout of the view is known. If not, every read of it fails with EIO. */
bool unshard_view_readable(const struct unshard_checkpoint *checkpoint, uint32_t view);
/* Whether the node of the view is listed. */
bool unshard_view_listed(const struct unshard_checkpoint *checkpoint, uint32_t view);
/* The component that a view shows, or -1 for any other file (configuration, tokenizer...). */
int32_t unshard_view_component(const struct unshard_checkpoint *checkpoint, uint32_t view);

/* A component: a set of shards, or one file of weights, that loads as one. Its strings live as long
 * as the checkpoint. */
struct unshard_component {
    const char *name;      /* "transformer"; "." of the root */
    const char *view_path; /* where its file is, or would be, below the mount point; or NULL */
    uint32_t view;         /* of that file; UNSHARD_NO_VIEW: there is none */
    const char *format;    /* "safetensors"... */
    uint64_t bytes;        /* of that file */
    uint64_t tensor_count;
    uint32_t shard_count;
    const struct unshard_error *error; /* it has failed; else NULL */
    const char *const *notes;          /* things worth a line; not errors */
    uint32_t note_count;
};
struct unshard_shard {
    const char *path; /* relative to the source */
    uint64_t bytes;
    const struct unshard_error *error; /* it cannot be used; else NULL */
};
uint32_t unshard_component_count(const struct unshard_checkpoint *checkpoint);
struct unshard_component unshard_component(const struct unshard_checkpoint *checkpoint,
                                           uint32_t component);
struct unshard_shard unshard_component_shard(const struct unshard_checkpoint *checkpoint,
                                             uint32_t component, uint32_t shard);
/* A tensor; all of it is valid during a call of unshard_tensor_found only. */
struct unshard_tensor {
    const char *name; /* may hold any byte */
    size_t name_length;
    const char *dtype; /* as the component's format calls it: "BF16"... */
    uint32_t rank;
    const uint64_t *shape;
    uint64_t bytes;
    const char *shard; /* path of the file that it (or its beginning) comes from, or NULL */
};
typedef void (*unshard_tensor_found)(void *context, const struct unshard_tensor *tensor);
/* Calls found for each tensor of a component, in the order of its file; of a failed component for
 * what is known. Reads headers again, so it may block. 0, or -ENOMEM with *error (NULL is allowed).
 */
int unshard_component_tensors(const struct unshard_checkpoint *checkpoint, uint32_t component,
                              unshard_tensor_found found, void *context,
                              struct unshard_error *error);
/* What is wrong with the checkpoint and with no component: files of digests that cannot be used...
 */
const struct unshard_error *unshard_checkpoint_problems(const struct unshard_checkpoint *checkpoint,
                                                        uint32_t *count);
/* What is worth a line about the whole of it. */
const char *const *unshard_checkpoint_notes(const struct unshard_checkpoint *checkpoint,
                                            uint32_t *count);

/* What a view is the same by, from one layout to the next, and in two directories: what it is made
 * of (the files' devices and inodes, sizes and times), and how. 16 bytes. */
void unshard_view_identity(const struct unshard_checkpoint *checkpoint, uint32_t view,
                           unsigned char out[16]);

/* What `unshard ls` prints, as JSON text (with tensors when asked). The caller frees it; NULL when
 * memory is short. Reads headers again when tensors are asked for, so it may block. */
char *unshard_checkpoint_describe_json(const struct unshard_checkpoint *checkpoint, bool tensors,
                                       struct unshard_error *error);

/* ---- the tree that lives -----------------------------------------------------------------------
 *
 * A source as it is from one moment to the next: each directory is laid out by itself when somebody
 * looks at it, and anew when it has changed on disk. A layout is an unshard_checkpoint that nothing
 * changes any more; its node 0 is the directory, its other nodes what is in it. Directories in
 * there have no children but those that are `made`. All paths are relative to the source, "" is the
 * source itself.
 */

struct unshard_tree;

/* Where something is at one moment: a node of a layout, which whoever has the place holds. */
struct unshard_place {
    struct unshard_checkpoint *layout;
    uint32_t node;
};

/* The source itself is looked at, nothing in it. directory: a descriptor of it that an earlier
 * process had (unshard_tree_directory), since its path may lead to what is mounted over it, and
 * source is the path as that one knew it; it stays the caller's; negative: the path is followed.
 * options->split: NULL is "auto" in a source that is one model, and "off" in any other. *out is
 * owned by the caller. Blocks on I/O. Errors: it is no readable directory, or memory. */
int unshard_tree_open(const char *source, int directory, const struct unshard_view_options *options,
                      struct unshard_tree **out, struct unshard_error *error);
/* A descriptor of the source, which is the tree's. */
int unshard_tree_directory(const struct unshard_tree *tree);
/* Nobody may hold a layout any more. NULL is allowed. */
void unshard_tree_close(struct unshard_tree *tree);
/* What all layouts have in common, and no node: what an engine is started with. Lives as long as
 * the tree. */
const struct unshard_checkpoint *unshard_tree_root(const struct unshard_tree *tree);
/* As unshard_checkpoint_cover. Before anything is looked at through the mount. */
void unshard_tree_cover(struct unshard_tree *tree, dev_t device);

/* A directory as it is now, or was at most a second ago, two while somebody is looking: *out is the
 * caller's to let go. Blocks on I/O; one that is looked at by several at once is laid out once.
 * Thread-safe. Errors: -ENOENT, -ENOTDIR: the tree does not show such a directory; others that
 * listing it has. */
int unshard_tree_look(struct unshard_tree *tree, const char *path, struct unshard_place *out,
                      struct unshard_error *error);
/* The same without any I/O: -EAGAIN when it has to be looked at. Never blocks. */
int unshard_tree_look_now(struct unshard_tree *tree, const char *path, struct unshard_place *out);
/* A user, as the kernel knows him when it checks permissions. */
struct unshard_user {
    uid_t uid;
    gid_t gid;
    const gid_t *groups; /* the others that he is in */
    unsigned group_count;
    bool groups_known; /* if not, he may be in any: he may what others and the group may */
};
/* Whether a user may list and search a directory and all on the way to it, the source first, by
 * their owners and modes as the tree has last seen them. Who looks at a directory has looked at all
 * on the way within the last seconds: so of what was found in there he is told nothing that he
 * could not have found himself at that time. False for what is not known, or is shown no more. No
 * I/O; never waits for storage. Thread-safe. */
bool unshard_tree_may_list(struct unshard_tree *tree, const char *path,
                           const struct unshard_user *user);
/* One more holder, one less. Thread-safe, never block but to free what nobody holds. */
struct unshard_checkpoint *unshard_layout_hold(struct unshard_checkpoint *layout);
void unshard_layout_release(struct unshard_checkpoint *layout);

/* Whether the source is one model: it has weights itself, is a pipeline, or a repository of the hub
 * cache. Blocks as unshard_tree_look. */
bool unshard_tree_is_one_model(struct unshard_tree *tree);
/* A look at a directory of the source that hangs. */
struct unshard_stuck_look {
    const char *directory; /* relative to the source, which is "." */
    double seconds;        /* since it began */
};

/* The looks at directories under way at one moment. */
struct unshard_looks {
    unsigned stalled;                 /* that hang, some of which are `stuck` */
    double oldest_seconds;            /* since the first of all began; 0: there is none */
    struct unshard_stuck_look *stuck; /* those that began first, in that order */
    uint32_t stuck_count;
};

/* Fills in *out, whoever the looks are for. What lies at out->stuck is one block, the caller's to
 * free(); NULL when none hangs, or memory is short. Never blocks on a look. Thread-safe. */
void unshard_tree_looks(struct unshard_tree *tree, struct unshard_looks *out);

/* Calls found for each directory that is not `made`, in the order in which a checkpoint opened as a
 * whole has their components: those that model_index.json of the source names, as it names them,
 * then the others by their paths. All are laid out before, several at a time. What cannot be listed
 * is left out. The layout is found's only during the call, unless it holds it. Blocks. 0, what
 * found returned, or -ENOMEM. */
typedef int (*unshard_tree_found)(void *context, const char *path,
                                  struct unshard_checkpoint *layout);
int unshard_tree_walk(struct unshard_tree *tree, unshard_tree_found found, void *context);
/* The same for the other directories of the pipeline that a directory is a component of, in the
 * order in which they are loaded, those first that come after it; for none when it is no such. */
int unshard_tree_pipeline(struct unshard_tree *tree, const char *path, unshard_tree_found found,
                          void *context);

/* ---- engine ------------------------------------------------------------------------------------
 */

struct unshard_engine;

/* What only the mount knows of itself, for the status. Zero in a field: not known. */
struct unshard_mount_facts {
    const char *mountpoint;     /* valid as long as the engine */
    unsigned connection;        /* number of the FUSE connection */
    uint64_t read_ahead_bytes;  /* what the kernel reads at once for a reader of the mount */
    unsigned restarts;          /* processes that have served the mount before this one */
    int64_t restart_time;       /* when the last one of these ended; seconds since the epoch */
    const char *restart_reason; /* ... and why: a word of unshard-status(7), or it is not shown */
};

/* What the engine needs from whoever shows the views to readers. */
struct unshard_publisher {
    void *context;
    /* Puts `size` verified bytes of a view in front of its readers, ahead of any read. offset is a
     * multiple of the page size; so is size, unless the range ends at the end of the view. May
     * block on a reader's pending read; is called without any lock held, from several threads at
     * once, never from a thread that answers reads. 0, -ENOENT: nobody has looked the view up, the
     * engine forgets that it stored anything there; any other error: this range is not stored. */
    int (*store)(void *context, uint32_t view, uint64_t offset, const void *data, size_t size);
    /* Takes whole pages of a view out of the page cache again, from offset to the end when size is
     * 0; a later read asks for them anew, and for the view's size and time. May be NULL, then the
     * kernel alone decides what stays. Blocks and is called as `store`. */
    void (*drop)(void *context, uint32_t view, uint64_t offset, uint64_t size);
    /* Fills out with bytes of a view that its page cache has, for readers that see nothing of it.
     * What comes may be of a page that is only being filled: the engine checks it. May be NULL.
     * Never waits for readers or stores; blocks for less than a second; any thread but one that
     * the publisher needs for it, no lock held. 0; -ENODATA: not all of the range is there; another
     * negative errno. */
    int (*retrieve)(void *context, uint32_t view, uint64_t offset, void *out, size_t size);
    /* Owner, group or mode of a view are not what they were: what the kernel knows of them is to be
     * forgotten, its pages are not. May be NULL. Blocks and is called as `store`. */
    void (*changed)(void *context, uint32_t view);
    /* A structured event worth a log line. Must not block for long; any thread, no lock held. */
    void (*log)(void *context, int syslog_priority, const char *line);
    /* Fills in *out, zeroed before, each time a status is made. NULL is allowed. Must not block;
     * any thread, no lock held. */
    void (*describe)(void *context, struct unshard_mount_facts *out);
    /* Fills in *out, zeroed before, as unshard_tree_looks does: out->stuck is the engine's to free.
     * Called for each status, and every few seconds for the log. NULL is allowed. Must not block;
     * any thread, no lock held. */
    void (*looks)(void *context, struct unshard_looks *out);
};

/* The end of a read. Called exactly once for each read, from any thread (also from within
 * unshard_engine_read), without any lock held. error is 0 or a positive errno; data is valid only
 * during the call. size is the size asked for, cut at the end of the view: never shorter. */
typedef void (*unshard_read_done)(void *cookie, int error, const void *data, size_t size);

/* How many bytes the largest chunks have of which a manifest of the checkpoint (or layout) has
 * digests: a chunk is checked as a whole. 0: none has. */
uint64_t unshard_digest_chunk_bytes(const struct unshard_checkpoint *checkpoint);

/* Starts the engine's threads. publisher may be NULL: then nothing is stored and only reads are
 * answered. The checkpoint must outlive the engine. *out is owned by the caller. */
int unshard_engine_start(const struct unshard_checkpoint *checkpoint,
                         const struct unshard_fetch_options *options,
                         const struct unshard_publisher *publisher, struct unshard_engine **out,
                         struct unshard_error *error);

/* Gives the engine the views of a layout, which must be of the tree whose root it was started with:
 * *view is the engine's number of the layout's view `local`. What is the same as in an earlier
 * layout (unshard_view_identity) keeps its number and all that is known of it. The engine holds the
 * layout for as long as it needs it. May block on the cache of digests. Thread-safe. Each call that
 * returns 0 is paired with an unshard_engine_detach. */
int unshard_engine_attach(struct unshard_engine *engine, struct unshard_checkpoint *layout,
                          uint32_t local, uint32_t *view, struct unshard_error *error);
/* The caller needs the view no more: what nobody needs, reads or has open is forgotten, and its
 * number may be used again. The kernel must not know it. Never blocks. Thread-safe. */
void unshard_engine_detach(struct unshard_engine *engine, uint32_t view);
/* Has the status tell what there is to tell of a layout besides its views: notes, problems, and
 * components that have no file. Of one that this was called for several times it is told once,
 * until unshard_engine_tell_no_more was called as often. The layout is held. Never block,
 * thread-safe. 0 or -ENOMEM. */
int unshard_engine_tell(struct unshard_engine *engine, struct unshard_checkpoint *layout);
void unshard_engine_tell_no_more(struct unshard_engine *engine, struct unshard_checkpoint *layout);
/* Puts a view at the end of the plan, if the engine was started with UNSHARD_PREFETCH_OPEN: true
 * when it was not in there. It leaves the plan, and its pages are given back, when the budget is
 * needed for others: so who opens it says so each time. model: any number, the same for all views
 * that are loaded together, which leave together, too. Reads /proc and /sys; never blocks on
 * storage; thread-safe. */
bool unshard_engine_prefetch(struct unshard_engine *engine, uint32_t view, uint64_t model);

/* Asks for [offset, offset + size) of a view. Never blocks; done may be called before it returns.
 * Thread-safe. */
void unshard_engine_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, size_t size,
                         unshard_read_done done, void *cookie);

/* The same for a range that is read ahead of what somebody waits for, and that will be asked for
 * page by page when it fails: it fails with EAGAIN rather than keep all of its pages waiting
 * because some of them have to, for a shard that is being verified or whose storage hangs. */
void unshard_engine_read_ahead(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                               size_t size, unshard_read_done done, void *cookie);

/* Tells that readers can now be served pages of the view (known), or that the kernel has dropped
 * the view and its pages (not known). Stores go to known views only. Never blocks, thread-safe. */
void unshard_engine_view_known(struct unshard_engine *engine, uint32_t view, bool known);
/* The same for a reader that sees nothing of the page cache (O_DIRECT): pages that it asks for may
 * be there all the same, and what is fetched ahead of it is kept until it was asked for. */
void unshard_engine_read_direct(struct unshard_engine *engine, uint32_t view, uint64_t offset,
                                size_t size, unshard_read_done done, void *cookie);

/* Tells that a reader opened (+1) or closed (-1) the view; direct: one that will use
 * unshard_engine_read_direct. Never blocks, thread-safe. */
void unshard_engine_view_opened(struct unshard_engine *engine, uint32_t view, bool direct,
                                int change);

/* Whether a shard of the view says something else in its header than the view was made from: then
 * the view's own header is true no more, and nobody may open it. Never blocks, thread-safe. */
bool unshard_engine_view_stale(struct unshard_engine *engine, uint32_t view);

/* What a reader is to be told of a view: size and time of a file that belongs to no component and
 * has changed on disk, of any other what the node says; owner, group and mode as the files are now,
 * or were a moment ago. */
struct unshard_view_facts {
    uint64_t size;
    int64_t mtime_ns;
    mode_t mode; /* type and permission bits, without write permission */
    uid_t uid;
    gid_t gid;
};
/* Never blocks, thread-safe. */
struct unshard_view_facts unshard_engine_view_facts(struct unshard_engine *engine, uint32_t view);

/* Gives a view's pages up: nothing of it is prefetched any more, the running stores into it are
 * waited for, at most timeout_ms, and what was stored is forgotten, so that the caller can then
 * have the kernel drop the pages. Readers are served as before, and what they read is stored while
 * they have the view open. Blocks; not from a thread that answers reads. 0, or -ETIMEDOUT with
 * stores still blocked: the view is given up all the same, but pages may come after. Thread-safe.
 */
int unshard_engine_view_evict(struct unshard_engine *engine, uint32_t view, unsigned timeout_ms);
/* Prefetches a view, anew if it had been: ends an eviction, forgets what was stored and starts the
 * plan over. Never blocks, thread-safe. */
void unshard_engine_view_warm(struct unshard_engine *engine, uint32_t view);

/* Stops prefetching and storing: starts no further store and waits for the running ones, at most
 * timeout_ms. Reads go on being answered. 0, or -ETIMEDOUT with stores still blocked. */
int unshard_engine_quiesce(struct unshard_engine *engine, unsigned timeout_ms);
/* Ends all threads, answers every pending read with ESHUTDOWN, frees the engine. Blocks until
 * running source reads return. NULL is allowed. */
void unshard_engine_stop(struct unshard_engine *engine);

/* ---- status ------------------------------------------------------------------------------------
 */

/* Of a shard; of a component: the worst news of its shards first. */
enum unshard_state {
    UNSHARD_STATE_UNKNOWN, /* only in what unshard_status_parse has read */
    UNSHARD_STATE_PENDING, /* nothing has been read yet */
    UNSHARD_STATE_READING,
    UNSHARD_STATE_VERIFIED,   /* all has been read, and matches a digest that was known before */
    UNSHARD_STATE_UNVERIFIED, /* all has been read, and no digest was known */
    UNSHARD_STATE_FAILED,
    UNSHARD_STATE_COUNT
};

/* Of the whole. */
enum unshard_mount_state {
    UNSHARD_MOUNT_UNKNOWN, /* as above */
    UNSHARD_MOUNT_PREFETCHING,
    UNSHARD_MOUNT_READY,
    UNSHARD_MOUNT_PAUSED,
    UNSHARD_MOUNT_DEGRADED,
    UNSHARD_MOUNT_FAILED,
    UNSHARD_MOUNT_STOPPING,
    UNSHARD_MOUNT_STATE_COUNT
};

/* A digest that a file does not match. Digests in hex. */
struct unshard_mismatch {
    const char *algorithm, *expected, *actual, *origin;
};

/* A file of the source. */
struct unshard_file_status {
    const char *path;      /* relative to the source */
    const char *component; /* name of the (first) component that it is a shard of, or NULL */
    enum unshard_state state;
    uint64_t bytes_total;                    /* that any view shows */
    uint64_t bytes_read;                     /* of these */
    uint64_t bytes_published;                /* in the page cache, or handed to readers */
    double reading_seconds;                  /* that its reads took, each by itself */
    const char *algorithm;                   /* of the digest that it is checked by, or NULL */
    const char *origin;                      /* who knows that, or NULL */
    const struct unshard_error *error;       /* the newest, or NULL */
    const struct unshard_mismatch *mismatch; /* or NULL */
};

struct unshard_component_status {
    const char *name;   /* "transformer"; "." of the root */
    const char *view;   /* path of its file below the mount point, or NULL */
    const char *format; /* "safetensors"... */
    const char *prefix; /* of one of several in its files: of the names of its tensors; or NULL */
    enum unshard_state state;
    uint64_t bytes_total, bytes_published; /* of its shards; of one of several its share of them */
    bool evicted;                          /* by request */
    const struct unshard_error *error;     /* of the component as a whole, or NULL */
    const char *const *notes;
    const struct unshard_file_status *const *shards;
    uint32_t note_count, shard_count;
};

/* A read of the source that hangs. */
struct unshard_stuck_read {
    const char *file;
    uint64_t offset;
    double seconds;
};

/* All that there is to tell of an engine at one moment: plain data, and what everything that is
 * shown (status files, extended attributes, commands) is made of. Seconds are exact to the
 * millisecond. */
struct unshard_status {
    const char *version; /* of the program that serves the mount */
    pid_t pid;           /* ... and its process; 0: not known */
    const char *source, *mountpoint;
    unsigned connection; /* as the two above, see unshard_mount_facts */
    uint64_t read_ahead_bytes;
    unsigned restarts;
    int64_t restart_time;
    const char *restart_reason;
    enum unshard_mount_state state;
    int64_t time;                          /* seconds since the epoch; 0: not known */
    double uptime_seconds;                 /* of the process, as all that is counted */
    uint64_t bytes_total, bytes_published; /* of all shards; each file counts once */
    uint64_t bytes_read, bytes_stored;     /* from the source; into the page cache */
    double rate_bytes_per_second;
    double reading_seconds;            /* during which anything was read */
    unsigned workers, jobs, in_flight; /* threads that fetch; reads that may run, that do */
    unsigned stalled;                  /* ... that hang, some of which are `stuck` */
    double oldest_request_seconds;
    struct unshard_looks looks; /* at directories; of the library, as all of this */
    uint64_t chunk_bytes, buffer_bytes, buffer_used_bytes;
    bool window_limited;       /* prefetching goes only so far ahead of readers: */
    uint64_t window_bytes;     /* ... 0 when it is not limited */
    uint64_t unconsumed_bytes; /* prefetched, and not yet passed by a reader */
    unsigned readers;          /* open handles */
    uint64_t reads, chunks_evicted, store_errors;
    uint64_t bytes_dropped; /* taken out of the page cache behind readers */
    uint64_t bytes_staged;  /* kept until the file that they belong to is verified */
    const struct unshard_stuck_read *stuck;
    enum unshard_verify verify;
    enum unshard_prefetch prefetch;
    const char *paused_reason; /* or NULL */
    unsigned errors;           /* failed components, problems, and failed files of no component */
    const struct unshard_component_status *components;
    const struct unshard_file_status *const *files; /* all; none in what was parsed */
    const struct unshard_error *problems; /* of none of these: the source, files of digests... */
    const char *const *notes;             /* of the whole */
    uint32_t stuck_count, component_count, file_count, problem_count, note_count;
    enum unshard_state view_state; /* see unshard_status_take */
    void *memory;                  /* of the library: what all of this lies in */
};

/* A consistent snapshot of the whole (view is UNSHARD_NO_VIEW), or of what concerns one view: then
 * there are only view_state, the files that the view shows and the component that it belongs to,
 * whose error is there when nothing of the view can be read. The caller frees it, before engine and
 * checkpoint end: it points into both. NULL when memory is short. Never blocks on I/O or on a
 * worker; the work is in proportion to the files concerned. Thread-safe. */
struct unshard_status *unshard_status_take(struct unshard_engine *engine, uint32_t view);
/* For whom a status is who may not list all directories. */
struct unshard_audience {
    /* Whether he may list a directory of the source, and all on the way to it; "" is the source
     * itself. Called by unshard_status_take_for, which calls it without any lock held. */
    bool (*may_list)(void *context, const char *directory);
    void *context;
};
/* The whole, as far as it lies in directories that somebody may list: components all of whose files
 * do, other files, stuck reads of these, and what is told of such directories. Sums, readers,
 * errors and states are of that. What is said of the source itself (that it is gone) stays, and so
 * do figures of the machine, which tell no names: what is read, stored, allowed and under way. Else
 * as unshard_status_take. */
struct unshard_status *unshard_status_take_for(struct unshard_engine *engine,
                                               const struct unshard_audience *audience);
/* The same from a text of unshard_status_json, which may be of another version of the program or
 * anybody's: what is missing or odd is zero, NULL, or unknown. The caller frees it; it depends on
 * nothing. NULL when the text is not of a known schema, or memory is short. Pure. */
struct unshard_status *unshard_status_parse(const char *json);
/* NULL is allowed. */
void unshard_status_free(struct unshard_status *status);

/* Renderings of a status. Pure functions, thread-safe; the caller frees what they return; NULL when
 * memory is short. */
/* Schema 1, see status-1.json; also what `.unshard/status.json` shows. */
char *unshard_status_json(const struct unshard_status *status);
/* For a person, as `.unshard/status` shows it. width: columns of the terminal, 0 for plain lines.
 */
char *unshard_status_text(const struct unshard_status *status, unsigned width);
/* The same for a terminal that shows it again and again: no more than fits on it, what is done in
 * fewer words where it does not; in colours where there may be escapes (SGR, no others). */
struct unshard_screen {
    unsigned columns, rows; /* rows: 0 for any number */
    bool colours;
};
char *unshard_status_picture(const struct unshard_status *status,
                             const struct unshard_screen *screen);
/* Where the whole stands in one line without a newline, for logs and pipes. */
char *unshard_status_summary(const struct unshard_status *status);
/* A line per problem, failed component and failing file, empty when all is well. */
char *unshard_status_errors(const struct unshard_status *status);
/* The figures in the OpenMetrics text format. */
char *unshard_status_metrics(const struct unshard_status *status);
/* What the files are checked by: names of algorithms, comma-separated ("sha256"), or "none". */
char *unshard_status_digests(const struct unshard_status *status);
/* "pending", "reading", "verified", "unverified", "failed"; "unknown". */
const char *unshard_state_name(enum unshard_state state);
/* "prefetching", "ready", "paused", "degraded", "failed", "stopping"; "unknown". */
const char *unshard_mount_state_name(enum unshard_mount_state state);

/* ---- texts for people --------------------------------------------------------------------------
 */

/* Pure functions, thread-safe, no allocation. Those that fill `out` return it, so that they can
 * stand in an argument list. */

/* What a name or message of any content says, in at most capacity-1 bytes of one line of UTF-8 that
 * no terminal acts on: control bytes and what is no UTF-8 appear as \xNN, and what does not fit is
 * cut with "...". */
const char *unshard_printable(char *out, size_t capacity, const char *text, size_t length);
/* The same for a name between quotes: quotes and backslashes appear as \xNN, too. */
const char *unshard_quote(char *out, size_t capacity, const char *name, size_t length);
/* The same of a string as the value of a field (key="value") in a line for programs: quotes get a
 * backslash. */
const char *unshard_field(char *out, size_t capacity, const char *value);
/* The length of the well-formed UTF-8 sequence at the start of length > 0 bytes; 0: there is none.
 */
size_t unshard_utf8_sequence(const void *bytes, size_t length);

#define UNSHARD_HUMAN_CAPACITY 32 /* what `out` holds at least, but for that of a bar */
/* "512 B", "1.5 MiB", "40.0 GiB". */
const char *unshard_human_bytes(char *out, uint64_t bytes);
/* "1.92 GB/s": decimal units, as storage and links are rated. */
const char *unshard_human_rate(char *out, double bytes_per_second);
/* "45 s", "3 min 20 s", "2 h 05 min". */
const char *unshard_human_duration(char *out, double seconds);
/* done as a percentage of total, rounded down so that 100 means all; 100 when total is 0. */
unsigned unshard_human_percent(uint64_t done, uint64_t total);
/* A bar of `width` characters between brackets: "[####....]". Needs width + 3 bytes; cut to what
 * capacity allows. */
const char *unshard_human_bar(char *out, size_t capacity, unsigned width, uint64_t done,
                              uint64_t total);
/* Columns that a UTF-8 string takes when every character takes one. */
size_t unshard_human_columns(const char *string);
/* Where to start printing a string so that it takes at most `columns`: names of shards differ at
 * their ends, so it is the beginning that goes. */
const char *unshard_human_tail(const char *string, size_t columns);

/* ---- this machine ------------------------------------------------------------------------------
 */

/* Bytes that page cache can take here: what the kernel says is available, or less where a memory
 * control group of this process leaves less; UINT64_MAX when neither tells. Reads /proc and /sys.
 * Thread-safe. */
uint64_t unshard_available_memory(void);
/* Whether the digests of chunks that one mount gains can be kept for the next ones; makes their
 * directory. Blocks on its file system. 0, or a negative errno and *error. Thread-safe. */
int unshard_cache_check(struct unshard_error *error);

/* ---- what outlives the process -----------------------------------------------------------------
 */

/* Memory that another process goes on with when this one has died, see keep.h: an area whose use is
 * the caller's, and records of kinds. */
struct unshard_keep;

enum unshard_keep_kind {
    UNSHARD_KEEP_START = 1, /* how the process was started */
    UNSHARD_KEEP_SESSION,   /* what was agreed with the kernel */
    UNSHARD_KEEP_NODE,      /* what the kernel knows by a number */
    UNSHARD_KEEP_NODE_IDS,  /* ... the last of which was this */
    UNSHARD_KEEP_TEXT,      /* of a status file that somebody has open */
    UNSHARD_KEEP_ENGINE,    /* of the engine as a whole */
    UNSHARD_KEEP_FILE       /* ... and of one content of one file: what was seen of it */
};

/* A new one, with an area of so many zero bytes. *out is the caller's. 0 or a negative errno. */
int unshard_keep_new(size_t area_bytes, struct unshard_keep **out, struct unshard_error *error);
/* That of a process that is gone, by a descriptor, which stays the caller's. -EPROTO with the code
 * "keep-layout": another version made it, or it is damaged, and nothing can be taken over. */
int unshard_keep_take(int fd, size_t area_bytes, struct unshard_keep **out,
                      struct unshard_error *error);
/* That of a process that may be there: records may be looked at, and none be added or removed. */
int unshard_keep_look(int fd, size_t area_bytes, struct unshard_keep **out,
                      struct unshard_error *error);
/* The same, to try out whether it could be taken: nobody else sees what is changed in it. */
int unshard_keep_rehearse(int fd, size_t area_bytes, struct unshard_keep **out,
                          struct unshard_error *error);
/* What is in there stays for whoever has it, too. NULL is allowed. */
void unshard_keep_close(struct unshard_keep *keep);
/* Its descriptor, which whoever is to hand it on duplicates; it is closed on exec. */
int unshard_keep_descriptor(const struct unshard_keep *keep);
void *unshard_keep_area(const struct unshard_keep *keep);
/* A new record of at least so many bytes, zeroed, which nobody finds until it is committed. NULL:
 * there is no room, or keep is NULL; what is not kept is made anew by the next process.
 * Thread-safe, as are those below. */
void *unshard_keep_add(struct unshard_keep *keep, enum unshard_keep_kind kind, size_t bytes);
void unshard_keep_commit(void *record);
/* NULL is allowed. */
void unshard_keep_remove(struct unshard_keep *keep, void *record);
size_t unshard_keep_size(const void *record);
/* Calls found for each record of a kind, until it returns other than 0, which is returned. What it
 * is given was written by another process, maybe one that ran wild. Records may be added meanwhile;
 * none may be removed. */
typedef int (*unshard_keep_found)(void *context, void *record, size_t bytes);
int unshard_keep_each(struct unshard_keep *keep, enum unshard_keep_kind kind,
                      unshard_keep_found found, void *context);

/* ---- export ------------------------------------------------------------------------------------
 */

/* Progress of a long operation: called from one thread at a time, a few times a second. */
typedef void (*unshard_progress)(void *context, const char *path, uint64_t done, uint64_t total);

/* Writes the tree of a checkpoint, without what is not listed and PyTorch files beside what they
 * are shown as, to the directory `target`, which must not exist or be empty, or hold what an export
 * of the same source has left that did not come to its end: views in parallel, each to a temporary
 * name, fsync, rename. What was finished then, and is what would be written now, is kept. Blocks.
 * On failure what was finished stays, temporary files do not; after SIGKILL they do until the next
 * run. A failed component makes the export fail after the rest is written. cancelled: NULL, or what
 * ends it with -ECANCELED when it becomes other than 0, which is to be written atomically. */
int unshard_export(const struct unshard_checkpoint *checkpoint,
                   const struct unshard_fetch_options *options, const char *target,
                   const int *cancelled, unshard_progress progress, void *context,
                   struct unshard_error *error);

/* ---- verifying and sealing ---------------------------------------------------------------------
 */

enum unshard_verdict {
    UNSHARD_VERIFIED,     /* all digests that are known of it matched */
    UNSHARD_UNVERIFIED,   /* none is known */
    UNSHARD_MISMATCH,     /* a digest, or the size, is another than the known one */
    UNSHARD_MISSING,      /* a manifest or a list of digests names it, and it is not there */
    UNSHARD_UNREADABLE,   /* it could not be read, or changed meanwhile */
    UNSHARD_CONTRADICTED, /* two origins say different things of it: one of them must be wrong */
    UNSHARD_VERDICT_COUNT
};

/* What came of one file. Strings and error live in the report. */
struct unshard_file_report {
    const char *path; /* relative to the source */
    uint64_t bytes;
    enum unshard_verdict verdict;
    const char *algorithm; /* of the digest that decided: "sha256"...; or "size"; or NULL */
    const char *origin;    /* who knows it: "SHA256SUMS line 3"...; or NULL */
    const char *expected;  /* in hex, a size in decimal; or NULL */
    const char *actual;    /* of a mismatch; or NULL */
    uint64_t bad_offset;   /* where the first bad chunk begins, as far as digests of chunks
                            * are known; else UNSHARD_NO_OFFSET */
    const struct unshard_error *error; /* NULL when verified or unverified */
};

struct unshard_report {
    const char *source;
    struct unshard_file_report *files;
    uint32_t file_count;
    uint32_t counts[UNSHARD_VERDICT_COUNT];
    const struct unshard_error *problems; /* of files of digests and of components */
    uint32_t problem_count;
    uint64_t bytes_checked;
    const char *manifest; /* path of the one written by unshard_seal, or NULL */
};

enum unshard_outcome {
    UNSHARD_ALL_GOOD,        /* all that could be checked matched, and something could */
    UNSHARD_SOME_BAD,        /* a file is bad or missing, or there is a problem */
    UNSHARD_NOTHING_TO_CHECK /* no digest is known of any file */
};

/* Reads every file of which a digest is known and compares; several files at once, options->jobs
 * (options may be NULL). Chunk digests gained on the way are kept in the user's cache. Blocks. 0
 * also when files are bad: the report says so; *out is owned by the caller. Errors: memory,
 * threads. */
int unshard_verify(const struct unshard_checkpoint *checkpoint,
                   const struct unshard_fetch_options *options, unshard_progress progress,
                   void *context, struct unshard_report **out, struct unshard_error *error);

/* Hashes all files and writes unshard-manifest.json, by rename. Left out are the manifest itself,
 * what lies in .git and .cache, and temporary files by their names. check: refuse when a file
 * contradicts what is known of it or a component has failed ("contradicts"), see
 * unshard_view_options.ignore_manifest for what counts. A file that cannot be read or changes
 * meanwhile makes it fail in any case; nothing is written then. Blocks. *out is owned by the
 * caller, also on failure, where it says which files are bad; NULL when memory is short. */
int unshard_seal(const struct unshard_checkpoint *checkpoint,
                 const struct unshard_fetch_options *options, bool check, unshard_progress progress,
                 void *context, struct unshard_report **out, struct unshard_error *error);

enum unshard_outcome unshard_report_outcome(const struct unshard_report *report);
/* "verified", "unverified", "mismatch", "missing", "unreadable", "contradicted". */
const char *unshard_verdict_name(enum unshard_verdict verdict);
/* The report as JSON text, schema 1; error: of the whole, or NULL. The caller frees it; NULL when
 * memory is short. */
char *unshard_report_json(const struct unshard_report *report, const struct unshard_error *error);
/* NULL is allowed. */
void unshard_report_free(struct unshard_report *report);

#ifdef __cplusplus
}
#endif
#endif
