/* SPDX-License-Identifier: MIT */
#include "fs/kernel/inode_table.h"

#include <pthread.h>
#include <stdlib.h>

struct entry {
    uint64_t lookups;
    bool told; /* the engine has been told that the view is known */
};

struct inode_table {
    const struct unshard_checkpoint *checkpoint;
    uint32_t node_count;
    uint64_t entry_count;
    uint64_t *view_nodeid; /* by view number; 0: no node */
    /* Held while the engine is told, so that "known" and "gone" reach it in the order they
     * happened. The engine takes its own lock below this one and never calls back with it held. */
    pthread_mutex_t mutex;
    struct unshard_engine *engine; /* protected by mutex */
    struct entry *entries;         /* by node id - 1; protected by mutex */
};

static int map_views(struct inode_table *table)
{
    uint32_t views = unshard_view_count(table->checkpoint);
    table->view_nodeid = calloc((size_t)views + 1, sizeof *table->view_nodeid);
    if (!table->view_nodeid)
        return -1;
    for (uint32_t number = 0; number < table->node_count; number++) {
        const struct unshard_node *node = unshard_node(table->checkpoint, number);
        if (node->view < views && !table->view_nodeid[node->view])
            table->view_nodeid[node->view] = (uint64_t)number + 1;
    }
    return 0;
}

struct inode_table *inode_table_new(const struct unshard_checkpoint *checkpoint, uint32_t extra)
{
    struct inode_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->checkpoint = checkpoint;
    table->node_count = unshard_node_count(checkpoint);
    table->entry_count = (uint64_t)table->node_count + extra;
    pthread_mutex_init(&table->mutex, NULL);
    table->entries = calloc(table->entry_count, sizeof *table->entries);
    if (!table->entries || map_views(table)) {
        inode_table_free(table);
        return NULL;
    }
    return table;
}

void inode_table_free(struct inode_table *table)
{
    if (!table)
        return;
    pthread_mutex_destroy(&table->mutex);
    free(table->entries);
    free(table->view_nodeid);
    free(table);
}

void inode_table_set_engine(struct inode_table *table, struct unshard_engine *engine)
{
    pthread_mutex_lock(&table->mutex);
    table->engine = engine;
    pthread_mutex_unlock(&table->mutex);
}

const struct unshard_node *inode_table_node(const struct inode_table *table, uint64_t nodeid)
{
    if (nodeid == 0 || nodeid > table->node_count)
        return NULL;
    return unshard_node(table->checkpoint, (uint32_t)(nodeid - 1));
}

uint64_t inode_table_nodeid(const struct inode_table *table, const struct unshard_node *node)
{
    return (uint64_t)unshard_node_number(table->checkpoint, node) + 1;
}

uint64_t inode_table_first_extra(const struct inode_table *table)
{
    return (uint64_t)table->node_count + 1;
}

uint64_t inode_table_view_nodeid(const struct inode_table *table, uint32_t view)
{
    return view < unshard_view_count(table->checkpoint) ? table->view_nodeid[view] : 0;
}

/* The view whose pages belong to this node id, or UNSHARD_NO_VIEW. */
static uint32_t view_of(const struct inode_table *table, uint64_t nodeid)
{
    const struct unshard_node *node = inode_table_node(table, nodeid);
    if (!node || node->view == UNSHARD_NO_VIEW ||
        inode_table_view_nodeid(table, node->view) != nodeid)
        return UNSHARD_NO_VIEW;
    return node->view;
}

static void tell(struct inode_table *table, uint64_t nodeid, bool known)
{
    struct entry *entry = &table->entries[nodeid - 1];
    uint32_t view = view_of(table, nodeid);
    if (view == UNSHARD_NO_VIEW || entry->told == known || !table->engine)
        return;
    entry->told = known;
    unshard_engine_view_known(table->engine, view, known);
}

void inode_table_lookup(struct inode_table *table, uint64_t nodeid)
{
    pthread_mutex_lock(&table->mutex);
    table->entries[nodeid - 1].lookups++;
    pthread_mutex_unlock(&table->mutex);
}

void inode_table_replied(struct inode_table *table, uint64_t nodeid)
{
    pthread_mutex_lock(&table->mutex);
    if (table->entries[nodeid - 1].lookups > 0)
        tell(table, nodeid, true);
    pthread_mutex_unlock(&table->mutex);
}

void inode_table_forget(struct inode_table *table, uint64_t nodeid, uint64_t count)
{
    if (nodeid == 0 || nodeid > table->entry_count)
        return;
    pthread_mutex_lock(&table->mutex);
    struct entry *entry = &table->entries[nodeid - 1];
    entry->lookups -= count < entry->lookups ? count : entry->lookups;
    if (entry->lookups == 0)
        tell(table, nodeid, false);
    pthread_mutex_unlock(&table->mutex);
}

bool inode_table_view_known(struct inode_table *table, uint32_t view)
{
    uint64_t nodeid = inode_table_view_nodeid(table, view);
    if (!nodeid)
        return false;
    pthread_mutex_lock(&table->mutex);
    bool known = table->entries[nodeid - 1].told;
    pthread_mutex_unlock(&table->mutex);
    return known;
}
