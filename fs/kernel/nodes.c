/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/nodes.h"

#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/status_files.h"

#define STATUS_NODEID 2 /* of the directory; its files follow. All are below INODE_FIRST. */
#define STATUS_ENTRY_TIMEOUT 1.0
#define STATUS_ATTRIBUTE_TIMEOUT 0.0

uint64_t nodes_status_nodeid(int file)
{
    return STATUS_NODEID + 1 + (uint64_t)file;
}

int nodes_status_file(uint64_t nodeid)
{
    uint64_t first = nodes_status_nodeid(0);
    return nodeid >= first && nodeid - first < status_file_count() ? (int)(nodeid - first) : -1;
}

bool nodes_is_status_directory(uint64_t nodeid)
{
    return nodeid == STATUS_NODEID;
}

void nodes_status_attributes(const struct filesystem *filesystem, int file, struct stat *out)
{
    const struct stat *shown = file < 0 ? &filesystem->status_directory : &filesystem->status_file;
    status_file_attributes(file, shown, out);
}

void nodes_status_entry(const struct filesystem *filesystem, int file, struct fuse_entry_param *out)
{
    *out = (struct fuse_entry_param){.ino = nodes_status_nodeid(file),
                                     .attr_timeout = STATUS_ATTRIBUTE_TIMEOUT,
                                     .entry_timeout = STATUS_ENTRY_TIMEOUT};
    nodes_status_attributes(filesystem, file, &out->attr);
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

/* What is known of it now. */
static struct unshard_view_facts facts_of(const struct filesystem *filesystem,
                                          const struct inode *inode,
                                          const struct unshard_node *node)
{
    uint32_t view = inode->kind == UNSHARD_NODE_FILE ? inode_table_view(filesystem->inodes, inode)
                                                     : UNSHARD_NO_VIEW;
    if (view != UNSHARD_NO_VIEW)
        return unshard_engine_view_facts(filesystem->engine, view);
    return (struct unshard_view_facts){node->size, node->mtime_ns, node->mode, node->uid,
                                       node->gid};
}

void nodes_attributes(const struct filesystem *filesystem, const struct inode *inode,
                      const struct unshard_place *place, struct stat *out)
{
    const struct unshard_node *node = unshard_node(place->layout, place->node);
    struct unshard_view_facts facts = facts_of(filesystem, inode, node);
    memset(out, 0, sizeof *out);
    out->st_ino = inode->number;
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

void nodes_entry(const struct filesystem *filesystem, const struct inode *inode,
                 const struct unshard_place *place, struct fuse_entry_param *out)
{
    *out = (struct fuse_entry_param){
        .ino = inode->id, .attr_timeout = NODES_TIMEOUT, .entry_timeout = NODES_TIMEOUT};
    nodes_attributes(filesystem, inode, place, &out->attr);
}

char *nodes_path(const char *directory, const char *name)
{
    char *path;
    if (!*directory)
        return strdup(name);
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

uint64_t nodes_path_hash(const char *path, size_t length)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)path[i]) * UINT64_C(1099511628211);
    return hash;
}
