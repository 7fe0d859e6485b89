/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/nodes.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>

#include "fs/kernel/inode_table.h"
#include "fs/kernel/status_files.h"

#define VIEW_TIMEOUT 86400.0 /* seconds; the tree does not change while it is mounted */
#define NEGATIVE_TIMEOUT 10.0
#define STATUS_ENTRY_TIMEOUT 1.0
#define STATUS_ATTRIBUTE_TIMEOUT 0.0

uint32_t nodes_extra_count(void)
{
    return status_file_count() + 1;
}

uint64_t nodes_status_nodeid(const struct filesystem *filesystem, int file)
{
    return inode_table_first_extra(filesystem->inodes) + (uint64_t)(file + 1);
}

int nodes_status_file(const struct filesystem *filesystem, uint64_t nodeid)
{
    uint64_t first = nodes_status_nodeid(filesystem, 0);
    return nodeid >= first && nodeid - first < status_file_count() ? (int)(nodeid - first) : -1;
}

bool nodes_is_status_directory(const struct filesystem *filesystem, uint64_t nodeid)
{
    return nodeid == nodes_status_nodeid(filesystem, -1);
}

static void set_time(struct stat *out, int64_t mtime_ns)
{
    int64_t nanoseconds = mtime_ns % 1000000000;
    if (nanoseconds < 0)
        nanoseconds += 1000000000;
    out->st_mtim.tv_sec = (mtime_ns - nanoseconds) / 1000000000;
    out->st_mtim.tv_nsec = nanoseconds;
    out->st_atim = out->st_ctim = out->st_mtim;
}

static gid_t shown_group(const struct known_groups *groups, gid_t group)
{
    for (unsigned i = 0; i < groups->count; i++)
        if (groups->others[i] == group)
            return groups->first;
    return group;
}

static void fill_attributes(const struct filesystem *filesystem, const struct unshard_node *node,
                            struct unshard_view_facts facts, struct stat *out)
{
    memset(out, 0, sizeof *out);
    out->st_ino = node->inode;
    out->st_mode = facts.mode;
    out->st_nlink = 1;
    out->st_uid = facts.uid;
    out->st_gid = shown_group(&filesystem->groups, facts.gid);
    out->st_size = (off_t)facts.size;
    if (node->kind == UNSHARD_NODE_SYMLINK)
        out->st_size = (off_t)strlen(node->target);
    else if (node->kind == UNSHARD_NODE_DIRECTORY)
        out->st_size = 4096;
    out->st_blocks = (blkcnt_t)(facts.size / 512 + (facts.size % 512 != 0));
    out->st_blksize = 1 << 20;
    set_time(out, facts.mtime_ns);
}

int nodes_attributes(const struct filesystem *filesystem, uint64_t nodeid, struct stat *out,
                     double *timeout)
{
    const struct unshard_node *node = inode_table_node(filesystem->inodes, nodeid);
    int file = nodes_status_file(filesystem, nodeid);
    if (node) {
        struct unshard_view_facts facts = {node->size, node->mtime_ns, node->mode, node->uid,
                                           node->gid};
        if (node->view != UNSHARD_NO_VIEW)
            facts = unshard_engine_view_facts(filesystem->engine, node->view);
        fill_attributes(filesystem, node, facts, out);
        *timeout = VIEW_TIMEOUT;
        return 0;
    }
    if (file < 0 && !nodes_is_status_directory(filesystem, nodeid))
        return -ENOENT;
    status_file_attributes(file, filesystem->checkpoint, out);
    *timeout = STATUS_ATTRIBUTE_TIMEOUT;
    return 0;
}

int nodes_entry(const struct filesystem *filesystem, uint64_t nodeid, struct fuse_entry_param *out)
{
    memset(out, 0, sizeof *out);
    int result = nodes_attributes(filesystem, nodeid, &out->attr, &out->attr_timeout);
    if (result)
        return result;
    out->ino = nodeid;
    out->entry_timeout =
        inode_table_node(filesystem->inodes, nodeid) ? VIEW_TIMEOUT : STATUS_ENTRY_TIMEOUT;
    return 0;
}

static uint64_t find_nodeid(const struct filesystem *filesystem, const struct unshard_node *parent,
                            const char *name)
{
    uint32_t number = unshard_node_number(filesystem->checkpoint, parent);
    if (number == 0 && !strcmp(name, STATUS_DIRECTORY_NAME))
        return nodes_status_nodeid(filesystem, -1);
    const struct unshard_node *child = unshard_node_child(filesystem->checkpoint, number, name);
    return child ? inode_table_nodeid(filesystem->inodes, child) : 0;
}

int nodes_find(const struct filesystem *filesystem, uint64_t parent, const char *name,
               struct fuse_entry_param *out)
{
    const struct unshard_node *node = inode_table_node(filesystem->inodes, parent);
    uint64_t nodeid = 0;
    if (node && node->kind != UNSHARD_NODE_DIRECTORY)
        return -ENOTDIR;
    if (node) {
        nodeid = find_nodeid(filesystem, node, name);
    } else if (nodes_is_status_directory(filesystem, parent)) {
        int file = status_file_find(name);
        nodeid = file < 0 ? 0 : nodes_status_nodeid(filesystem, file);
    } else {
        return -ENOENT;
    }
    if (nodeid)
        return nodes_entry(filesystem, nodeid, out);
    memset(out, 0, sizeof *out);
    out->entry_timeout = NEGATIVE_TIMEOUT;
    return 0;
}
