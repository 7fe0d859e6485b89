/* SPDX-License-Identifier: MIT
 * What the kernel knows: node ids, and how many lookups of each the kernel has not yet forgotten.
 *
 * The node id of node n is n + 1, so the root is 1; the files of `.unshard` come after the nodes. A
 * node id is never used for anything else: a late store would land in the wrong file. */
#ifndef FS_KERNEL_INODE_TABLE_H
#define FS_KERNEL_INODE_TABLE_H

#include "unshard.h"

struct inode_table;

/* A table for all nodes of the checkpoint, which must outlive it, and `extra` further node ids.
 * NULL when memory is short. The caller owns it. */
struct inode_table *inode_table_new(const struct unshard_checkpoint *checkpoint, uint32_t extra);
void inode_table_free(struct inode_table *table);

/* The engine to tell which views the kernel knows. Call before the first lookup and, with NULL,
 * after the last one. */
void inode_table_set_engine(struct inode_table *table, struct unshard_engine *engine);

/* The node behind a node id, or NULL when it is none (an extra one, or nonsense). */
const struct unshard_node *inode_table_node(const struct inode_table *table, uint64_t nodeid);
uint64_t inode_table_nodeid(const struct inode_table *table, const struct unshard_node *node);
uint64_t inode_table_first_extra(const struct inode_table *table);
/* The node id whose pages are the view's, or 0 when no node shows the view. */
uint64_t inode_table_view_nodeid(const struct inode_table *table, uint32_t view);

/* Counts a lookup. Call before replying, since the kernel may forget at once. Thread-safe. */
void inode_table_lookup(struct inode_table *table, uint64_t nodeid);
/* Tells the engine that a looked-up view is known. Call after the reply: only then does the kernel
 * have an inode that pages can be stored into. Thread-safe. */
void inode_table_replied(struct inode_table *table, uint64_t nodeid);
/* Takes lookups back: a FORGET, or a reply that did not reach the kernel. At zero the engine is
 * told that the view is gone. Thread-safe. */
void inode_table_forget(struct inode_table *table, uint64_t nodeid, uint64_t count);
/* Whether the engine has been told that the kernel knows the view. Thread-safe. */
bool inode_table_view_known(struct inode_table *table, uint32_t view);

#endif
