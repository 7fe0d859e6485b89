/* SPDX-License-Identifier: MIT
 *
 * What the kernel knows: a node for each file, directory and symlink that it has been told of, from
 * the LOOKUP or READDIRPLUS that tells it to the FORGET of the last one.
 *
 * A directory and a symlink are the same as long as their path is (a symlink, as long as it says
 * the same), a file as long as its view is, by unshard_view_identity: two names of one view are one
 * node, with the number (st_ino) of the name that was seen first, and with one set of pages. Where
 * a path leads to another view it has another node; who has the old one open keeps it. Node ids are
 * never used twice: a late store would land in the wrong file. The root is 1, `.unshard` and its
 * files have fixed ones below INODE_FIRST.
 *
 * A node of a file holds the layout in which it was seen last, and knows its number there; one that
 * is not attached, and that nobody has asked for in some seconds, or since many others were, holds
 * none any more (inode_table_tidy): a thousand models that were listed once would be kept by it.
 * The engine knows nothing of a node until it is attached: when it is first opened, or asked for
 * what only the engine knows. From then on it has the engine's number of the view, until the kernel
 * has forgotten it and nobody has a reference; then it is detached. For an attached node the engine
 * is told when the kernel has an inode, which it has from a moment after the reply until the
 * FORGET.
 *
 * What the kernel knows outlives the process: each node is kept (kept_nodes.h), and the table of
 * the process that goes on with the mount begins with all of them, under their ids. Of these it
 * does not know how often the kernel has looked them up, nor whether it still does: an inherited
 * node is taken for known, and when all lookups that were counted are forgotten the kernel is asked
 * (inode_table_ask). A file of that kind has no layout until its path is looked at again, and is
 * the same if its view is: another one there has another node, and who has the old one open can
 * read no more of it than the kernel has.
 *
 * Whoever works with a node has a reference: a request until it is answered, an open file, what is
 * attached without having been looked up. A node ends with the last of lookups and references.
 *
 * One mutex for all of it. It is held while the engine is told that a view is known or gone, so
 * that both reach it in the order in which they happen, and while nothing else is called: layouts
 * are let go of, and views attached and detached, without it. Below it are the engine's own locks.
 * No function blocks, but for inode_table_attach. All are thread-safe. */
#ifndef FS_KERNEL_INODE_TABLE_H
#define FS_KERNEL_INODE_TABLE_H

#include "unshard.h"

#define INODE_ROOT 1
#define INODE_FIRST 64 /* below it are those of `.unshard` */

struct inode_table;

/* Whether the kernel has an inode of a node: asked without the mutex, may wait for the end of that
 * inode. */
typedef bool (*inode_is_known)(void *context, uint64_t id);

/* What is constant of a node. The rest is the table's. */
struct inode {
    uint64_t id;
    enum unshard_node_kind kind;
    uint64_t number; /* st_ino */
    char *path;      /* of a directory or a symlink, below the source; "" of the source itself. NULL
                      * of a file: see inode_sight */
    char *target;    /* of a symlink */
};

/* Where a file was seen last. */
struct inode_sight {
    char *path;                 /* below the source; of the caller */
    struct unshard_place place; /* without a layout, when that is not held any more: then the file
                                 * is not attached, and its path is to be looked at again */
};

/* With the root alone, as it is in the layout of the source. NULL when memory is short. The caller
 * owns it. */
struct inode_table *inode_table_new(const struct unshard_checkpoint *root);
/* From now on nodes are kept, and those are there that an earlier process has kept; `known` is
 * asked of them. Before the first request, once. 0 or -ENOMEM. */
int inode_table_inherit(struct inode_table *table, struct unshard_keep *keep, inode_is_known known,
                        void *context);
/* When the engine has ended: it is told nothing. NULL is allowed. */
void inode_table_free(struct inode_table *table);

/* The engine that views are attached to. Before the first request, and before anything is attached.
 */
void inode_table_set_engine(struct inode_table *table, struct unshard_engine *engine);

/* ---- nodes -------------------------------------------------------------------------------------
 */

/* A node by its id, with a reference for the caller; NULL: there is none (it is of `.unshard`, or
 * nonsense). */
struct inode *inode_table_get(struct inode_table *table, uint64_t id);
/* The node of what a path leads to at this moment, made if there is none, with a reference. A file
 * that is known already was seen here now. NULL when memory is short. */
struct inode *inode_table_enter(struct inode_table *table, const char *path,
                                const struct unshard_place *place);
/* Like that, but never made: NULL when the kernel was not told of it. */
struct inode *inode_table_find(struct inode_table *table, const char *path,
                               const struct unshard_place *place);
/* The id of the directory that a path is in; 0: the kernel does not know it. */
uint64_t inode_table_directory(struct inode_table *table, const char *path);
/* The number of the directory that a path is in, which the kernel knows; of the root, its own. */
uint64_t inode_table_above(struct inode_table *table, const char *path);
/* The source itself was looked at: the status tells of its layout, whatever is attached. */
void inode_table_see_root(struct inode_table *table, struct unshard_checkpoint *layout);
/* The layout of the source that was seen last, for the caller to release; NULL when memory was
 * short.
 */
struct unshard_checkpoint *inode_table_root_layout(struct inode_table *table);
/* A directory that the kernel knows was found to have this layout: true when it was another one
 * before. */
bool inode_table_is_news(struct inode_table *table, const char *path,
                         const struct unshard_checkpoint *layout);
/* Calls found for each name of a directory, and the id of that, by which the kernel knows something
 * that is not there any more, and does not know what is there now. Other than 0 ends it. 0,
 * -ENOMEM, or what found returned. */
typedef int (*inode_name_found)(void *context, uint64_t directory, const char *name);
int inode_table_superseded(struct inode_table *table, const char *path,
                           const struct unshard_place *place, inode_name_found found,
                           void *context);
/* One more reference. */
void inode_table_hold(struct inode_table *table, struct inode *inode);
/* One less. NULL is allowed. */
void inode_table_put(struct inode_table *table, struct inode *inode);
/* Where a file was seen last; it is the caller's to release. 0 or -ENOMEM. */
int inode_table_sight(struct inode_table *table, const struct inode *inode,
                      struct inode_sight *out);
void inode_sight_release(struct inode_sight *sight);
/* Has nodes let go of layouts that they do not need, when it was not done within a second. A few
 * milliseconds for a hundred thousand nodes. now_ms: of a clock that never goes back. */
void inode_table_tidy(struct inode_table *table, int64_t now_ms);
/* How many nodes there are, and how many bytes their files have together. */
void inode_table_count(struct inode_table *table, uint64_t *nodes, uint64_t *bytes);
/* Calls found for each file that there is at this moment, which is the caller's of found only
 * during the call; other than 0 ends it. May be called with other functions of the table from
 * within. 0, -ENOMEM, or what found returned. */
typedef int (*inode_found)(void *context, struct inode *inode);
int inode_table_each_file(struct inode_table *table, inode_found found, void *context);

/* ---- what the kernel knows ---------------------------------------------------------------------
 */

/* Counts a lookup. Before the reply, since the kernel may forget at once. */
void inode_table_lookup(struct inode_table *table, struct inode *inode);
/* After the reply: only then does the kernel have an inode that pages can be stored into. */
void inode_table_replied(struct inode_table *table, struct inode *inode);
/* Takes lookups back: a FORGET, or a reply that did not reach the kernel. */
void inode_table_forget(struct inode_table *table, uint64_t id, uint64_t count);
/* Ends inherited nodes that the kernel does not know any more. Takes some microseconds for each
 * that is left. */
void inode_table_ask(struct inode_table *table);
/* Calls found for each inherited file that an earlier process had attached and this one has not,
 * those that are open first, as inode_table_each_file does. */
int inode_table_each_inherited(struct inode_table *table, inode_found found, void *context);
/* A handle was opened (+1) or closed (-1): holds the node, and tells the engine if it is attached;
 * it is told of all handles when it is attached later. More closed than opened counts as none. */
void inode_table_opened(struct inode_table *table, struct inode *inode, bool direct, int change);

/* Whether it has handles. */
bool inode_table_is_open(struct inode_table *table, const struct inode *inode);
/* Once an OPEN has been answered: that handle is there for the next process as well. It is not
 * before, and not any more before a RELEASE is answered, since that one may answer both once more:
 * it counts a handle too few then, which it finds out when it is used, and not one too many, for
 * which no RELEASE would come. (But for this: all handles are kept that are counted, also one of
 * another OPEN of the file that has just not been answered.) The caller has a reference. */
void inode_table_keep_handles(struct inode_table *table, struct inode *inode);

/* ---- the engine's side -------------------------------------------------------------------------
 */

/* Makes a file the engine's, if it is not yet. Blocks as unshard_engine_attach. 0 or a negative
 * errno with *error; -EAGAIN: its path is to be looked at again, and entered. */
int inode_table_attach(struct inode_table *table, struct inode *inode, struct unshard_error *error);
/* The engine's number of a file, or UNSHARD_NO_VIEW when it is not attached. Who has a reference
 * finds it attached for as long, once it was. */
uint32_t inode_table_view(struct inode_table *table, const struct inode *inode);
/* Whether the layout of a file is known; if not, nobody can read it. */
bool inode_table_readable(struct inode_table *table, const struct inode *inode);
/* What it is loaded together with, see unshard_engine_prefetch: what was set last, or 0. */
uint64_t inode_table_model(struct inode_table *table, const struct inode *inode);
void inode_table_set_model(struct inode_table *table, struct inode *inode, uint64_t model);
/* The node id whose pages are the view's, or 0 when no node has it. */
uint64_t inode_table_view_nodeid(struct inode_table *table, uint32_t view);
/* Whether the engine has been told that the kernel knows the view. */
bool inode_table_view_known(struct inode_table *table, uint32_t view);

#endif
