/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/directories.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/inode_table.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/status_files.h"

#define LARGEST_REPLY ((size_t)256 * 1024)

/* One reply being built. */
struct listing {
    struct filesystem *filesystem;
    fuse_req_t request;
    uint64_t nodeid;
    const struct unshard_node *directory; /* NULL: `.unshard` */
    bool plus;
    char *buffer;
    size_t capacity, used;
};

static uint64_t entry_count(const struct listing *listing)
{
    uint64_t children = listing->directory ? listing->directory->child_count : status_file_count();
    return 2 + children;
}

/* The name and node id of the entry at an offset. */
static const char *entry_at(const struct listing *listing, uint64_t offset, uint64_t *nodeid)
{
    *nodeid = listing->nodeid;
    if (offset == 0)
        return ".";
    if (offset == 1) {
        *nodeid = listing->directory ? (uint64_t)listing->directory->parent + 1 : FUSE_ROOT_ID;
        return "..";
    }
    if (!listing->directory) {
        *nodeid = nodes_status_nodeid(listing->filesystem, (int)(offset - 2));
        return status_file_name((unsigned)(offset - 2));
    }
    uint32_t number = listing->directory->first_child + (uint32_t)(offset - 2);
    *nodeid = (uint64_t)number + 1;
    return unshard_node(listing->filesystem->checkpoint, number)->name;
}

/* Whether the entry at an offset is one that listings leave out. */
static bool unlisted(const struct listing *listing, uint64_t offset)
{
    if (!listing->directory || offset < 2)
        return false;
    uint32_t number = listing->directory->first_child + (uint32_t)(offset - 2);
    return unshard_node(listing->filesystem->checkpoint, number)->unlisted;
}

/* Adds one entry; false when it does not fit any more. */
static bool add(struct listing *listing, uint64_t offset)
{
    uint64_t nodeid;
    const char *name = entry_at(listing, offset, &nodeid);
    struct fuse_entry_param entry;
    if (unlisted(listing, offset) || nodes_entry(listing->filesystem, nodeid, &entry))
        return true;
    if (offset < 2)
        entry.ino = 0; /* "." and ".." do not count as lookups */
    char *end = listing->buffer + listing->used;
    size_t room = listing->capacity - listing->used;
    size_t length = listing->plus ? fuse_add_direntry_plus(listing->request, end, room, name,
                                                           &entry, (off_t)(offset + 1))
                                  : fuse_add_direntry(listing->request, end, room, name,
                                                      &entry.attr, (off_t)(offset + 1));
    if (length > room)
        return false;
    listing->used += length;
    if (listing->plus && entry.ino)
        inode_table_lookup(listing->filesystem->inodes, nodeid);
    return true;
}

/* After the reply: the entries are known to the kernel, or their lookups are taken back. */
static void settle(const struct listing *listing, uint64_t from, uint64_t to, bool reached)
{
    for (uint64_t offset = from < 2 ? 2 : from; offset < to; offset++) {
        uint64_t nodeid;
        if (unlisted(listing, offset))
            continue;
        entry_at(listing, offset, &nodeid);
        if (reached)
            inode_table_replied(listing->filesystem->inodes, nodeid);
        else
            inode_table_forget(listing->filesystem->inodes, nodeid, 1);
    }
}

static void reply(struct listing *listing, uint64_t offset)
{
    uint64_t next = offset, count = entry_count(listing);
    while (next < count && add(listing, next))
        next++;
    bool reached = fuse_reply_buf(listing->request, listing->buffer, listing->used) == 0;
    if (listing->plus)
        settle(listing, offset, next, reached);
}

void directories_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      size_t size, off_t offset, bool plus)
{
    struct listing listing = {
        .filesystem = filesystem,
        .request = request,
        .nodeid = nodeid,
        .directory = inode_table_node(filesystem->inodes, nodeid),
        .plus = plus,
        .capacity = size < LARGEST_REPLY ? size : LARGEST_REPLY,
    };
    bool is_directory = listing.directory ? listing.directory->kind == UNSHARD_NODE_DIRECTORY
                                          : nodes_is_status_directory(filesystem, nodeid);
    if (!is_directory || offset < 0) {
        fuse_reply_err(request, is_directory ? EINVAL : ENOTDIR);
        return;
    }
    listing.buffer = malloc(listing.capacity + 1);
    if (!listing.buffer) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    reply(&listing, (uint64_t)offset);
    free(listing.buffer);
}
