/* SPDX-License-Identifier: MIT */
#include "tree/discovery.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#define ROOT_INODE 1U

/* A node to be, of either kind. */
struct child {
    const char *name;
    uint32_t entry;                 /* scan entry, or SCAN_NONE */
    const struct added_file *added; /* when entry is SCAN_NONE */
};

struct tree_builder {
    struct discovery *discovery;
    struct unshard_node *nodes;
    uint32_t *entries; /* of each node: its scan entry, or SCAN_NONE */
    uint32_t count;
    struct child *children; /* of the directory at hand */
};

static mode_t shown_mode(mode_t mode, mode_t type)
{
    return type | (mode & 0777 & ~(mode_t)0222);
}

static int compare_children(const void *a, const void *b)
{
    return strcmp(((const struct child *)a)->name, ((const struct child *)b)->name);
}

static int compare_added(const void *left, const void *right)
{
    const struct added_file *a = left, *b = right;
    if (a->directory != b->directory)
        return a->directory < b->directory ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* The first added file of a directory, or of a later one. */
static uint32_t first_added(const struct discovery *discovery, uint32_t directory)
{
    uint32_t low = 0, high = discovery->added_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (discovery->added[middle].directory < directory)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t collect_children(struct tree_builder *builder, uint32_t directory)
{
    struct discovery *discovery = builder->discovery;
    const struct scan_entry *parent = &discovery->scan.entries[directory];
    uint32_t on_disk = scan_is_focus(&discovery->scan, directory) ? parent->child_count : 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < on_disk; i++) {
        const struct scan_entry *entry = &discovery->scan.entries[parent->first_child + i];
        if (!entry->hidden && entry->kind != SCAN_EXCLUDED)
            builder->children[count++] =
                (struct child){.name = entry->name, .entry = parent->first_child + i};
    }
    for (uint32_t i = first_added(discovery, directory);
         i < discovery->added_count && discovery->added[i].directory == directory; i++) {
        const struct added_file *added = &discovery->added[i];
        builder->children[count++] =
            (struct child){.name = added->name,
                           .entry = added->subdirectory != 0 ? added->subdirectory : SCAN_NONE,
                           .added = added};
    }
    qsort(builder->children, count, sizeof *builder->children, compare_children);
    return count;
}

static void set_file(struct tree_builder *builder, struct unshard_node *node, uint32_t view)
{
    struct unshard_checkpoint *checkpoint = builder->discovery->checkpoint;
    node->kind = UNSHARD_NODE_FILE;
    node->view = view;
    node->size = checkpoint->views[view].size;
    checkpoint->views[view].node = (uint32_t)(node - builder->nodes);
    checkpoint->views[view].unlisted = node->unlisted;
}

static void fill_from_entry(struct tree_builder *builder, struct unshard_node *node,
                            const struct scan_entry *entry)
{
    node->uid = entry->uid;
    node->gid = entry->gid;
    node->mtime_ns = entry->mtime_ns;
    node->unlisted = entry->unlisted;
    if (entry->kind == SCAN_DIRECTORY) {
        node->kind = UNSHARD_NODE_DIRECTORY;
        node->made = entry->made;
        node->mode = shown_mode(entry->mode, S_IFDIR);
    } else if (entry->kind == SCAN_SYMLINK) {
        node->kind = UNSHARD_NODE_SYMLINK;
        node->mode = S_IFLNK | 0777;
        node->target = entry->target;
        node->size = strlen(entry->target);
    } else {
        node->mode = shown_mode(entry->mode, S_IFREG);
        set_file(builder, node, entry->view);
        builder->discovery->checkpoint->views[entry->view].replaced = entry->replaced;
    }
}

static void fill_from_added(struct tree_builder *builder, struct unshard_node *node,
                            const struct added_file *added)
{
    node->uid = added->uid;
    node->gid = added->gid;
    node->mtime_ns = added->mtime_ns;
    node->mode = shown_mode(added->mode, S_IFREG);
    node->unlisted = added->unlisted;
    set_file(builder, node, added->view);
    builder->discovery->checkpoint->views[added->view].added = true;
}

static struct unshard_node *add_node(struct tree_builder *builder, uint32_t parent,
                                     const char *name, uint32_t entry)
{
    struct unshard_node *node = &builder->nodes[builder->count];
    *node = (struct unshard_node){.name = name, .parent = parent, .view = UNSHARD_NO_VIEW};
    builder->entries[builder->count++] = entry;
    return node;
}

static void add_children(struct tree_builder *builder, uint32_t parent)
{
    uint32_t count = collect_children(builder, builder->entries[parent]);
    builder->nodes[parent].first_child = builder->count;
    builder->nodes[parent].child_count = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct child *child = &builder->children[i];
        struct unshard_node *node = add_node(builder, parent, child->name, child->entry);
        if (child->entry == SCAN_NONE)
            fill_from_added(builder, node, child->added);
        else
            fill_from_entry(builder, node, &builder->discovery->scan.entries[child->entry]);
    }
}

/* Takes the first free number from `inode` on. taken: open addressing, never full. */
static uint64_t claim_inode(uint64_t *taken, size_t capacity, uint64_t inode)
{
    for (;; inode++) {
        if (inode <= ROOT_INODE)
            continue;
        size_t slot = inode & (capacity - 1);
        while (taken[slot] != 0 && taken[slot] != inode)
            slot = (slot + 1) & (capacity - 1);
        if (taken[slot] == 0) {
            taken[slot] = inode;
            return inode;
        }
    }
}

static uint64_t wanted_inode(const char *name, size_t length, uint64_t parent)
{
    return XXH3_64bits_withSeed(name, length, parent);
}

/* What the directory at a path has unless its number clashes with another one's. */
static uint64_t inode_of_path(const char *path)
{
    uint64_t inode = ROOT_INODE;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        inode = wanted_inode(path, length, inode);
        path += length + (path[length] == '/');
    }
    return inode;
}

/* Numbers are derived from the path (the parent's number stands for its path), so that they are the
 * same at the next mount; a clash takes the next free one, in the order of nodes. */
static int assign_inodes(struct tree_builder *builder)
{
    size_t capacity = 16;
    while (capacity < 2U * (size_t)builder->count)
        capacity *= 2;
    uint64_t *taken = calloc(capacity, sizeof *taken);
    if (taken == NULL)
        return -ENOMEM;
    builder->nodes[0].inode =
        inode_of_path(builder->discovery->scan.entries[builder->entries[0]].path);
    for (uint32_t i = 1; i < builder->count; i++) {
        struct unshard_node *node = &builder->nodes[i];
        uint64_t wanted =
            wanted_inode(node->name, strlen(node->name), builder->nodes[node->parent].inode);
        node->inode = claim_inode(taken, capacity, wanted);
    }
    free(taken);
    return 0;
}

/* Files that belong to no component, and shards that are shown too. */
static int add_other_views(struct discovery *discovery)
{
    for (uint32_t i = 0; i < discovery->scan.count; i++) {
        struct scan_entry *entry = &discovery->scan.entries[i];
        if (entry->kind != SCAN_FILE || entry->hidden || entry->view != UNSHARD_NO_VIEW ||
            !scan_is_focus(&discovery->scan, entry->parent))
            continue;
        if (discovery_add_passthrough(discovery, i, entry->size, NO_COMPONENT) == UNSHARD_NO_VIEW)
            return -ENOMEM;
    }
    return 0;
}

static int build_nodes(struct tree_builder *builder)
{
    const struct scan *scan = &builder->discovery->scan;
    uint32_t top = scan->focus == SCAN_NONE ? 0 : scan->focus;
    fill_from_entry(builder, add_node(builder, 0, "", top), &scan->entries[top]);
    for (uint32_t i = 0; i < builder->count; i++)
        if (builder->nodes[i].kind == UNSHARD_NODE_DIRECTORY)
            add_children(builder, i);
    return assign_inodes(builder);
}

int tree_build(struct discovery *discovery, struct unshard_error *error)
{
    struct tree_builder builder = {.discovery = discovery};
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    if (add_other_views(discovery) != 0)
        return error_no_memory(error);
    size_t most = (size_t)discovery->scan.count + discovery->added_count + 1;
    if (discovery->added_count > 0)
        qsort(discovery->added, discovery->added_count, sizeof *discovery->added, compare_added);
    builder.nodes = arena_alloc_array(&checkpoint->arena, most, sizeof *builder.nodes);
    builder.entries = calloc(most, sizeof *builder.entries);
    builder.children = calloc(most, sizeof *builder.children);
    int result = -ENOMEM;
    if (builder.nodes != NULL && builder.entries != NULL && builder.children != NULL)
        result = build_nodes(&builder);
    checkpoint->nodes = builder.nodes;
    checkpoint->node_count = builder.count;
    free(builder.entries);
    free(builder.children);
    return result == 0 ? 0 : error_no_memory(error);
}
