/* SPDX-License-Identifier: MIT
 *
 * Nodes as they are kept for the process that goes on with the mount (keep.h): a record for each
 * node that the kernel was told of, made by inode_table.c and read by that of the next process.
 *
 * What a node is does not change; where it has another path a new record takes the place of the old
 * one, both of which are there for a moment: the next process takes either. Only the handles that
 * are open change, and whether it is attached, in single stores.
 *
 * Node ids are never used twice, so the last one is kept as well, before it is given to a node. */
#ifndef FS_KERNEL_KEPT_NODES_H
#define FS_KERNEL_KEPT_NODES_H

#include "unshard.h"

#define KEPT_IDENTITY_SIZE 16

struct kept_node;

struct kept_node_facts {
    uint64_t id, number, size;
    enum unshard_node_kind kind;
    unsigned char identity[KEPT_IDENTITY_SIZE];
    const char *path, *target; /* target: of a symlink, else NULL */
    unsigned buffered, direct; /* handles */
    bool attached;
};

/* A record of it, committed. NULL: nothing can be kept, or keep is NULL. Thread-safe. */
struct kept_node *kept_node_new(struct unshard_keep *keep, const struct kept_node_facts *facts);
/* NULL is allowed. */
void kept_node_handles(struct kept_node *kept, unsigned buffered, unsigned direct);
void kept_node_attached(struct kept_node *kept, bool attached);
/* What a record says, which anybody may have written: false when it makes no sense. Strings lie in
 * the record. */
bool kept_node_read(const void *record, size_t bytes, struct kept_node_facts *out);

/* The last id that was given: *out points to where it is kept, found or made; NULL when nothing can
 * be kept. */
uint64_t *kept_node_last_id(struct unshard_keep *keep);

#endif
