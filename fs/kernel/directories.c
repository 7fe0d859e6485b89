/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/directories.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/errands.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/status_files.h"

#define LARGEST_REPLY ((size_t)256 * 1024)
/* No entry of READDIRPLUS is smaller. */
#define LEAST_ENTRY 128u

/* ---- handles -----------------------------------------------------------------------------------
 */

/* What the kernel knows by a number: one that an earlier process has given is listed anew, from
 * where its reader is, and has its layout from then on. */
struct open_directory {
    uint64_t number;
    struct unshard_place place;             /* holds the layout, once it is listed; of open_mutex */
    struct open_directory *next, *previous; /* in its bucket */
};

#define BUCKETS 64u
#define NUMBERS (UINT64_C(1) << 48) /* that a process gives at most */

/* All that are open: a RELEASEDIR can come after the mount has gone, that is, never. */
static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct open_directory *open_directories[BUCKETS]; /* of open_mutex, as is last_number */
static uint64_t last_number;

void directories_begin(unsigned generation)
{
    last_number = NUMBERS * generation;
}

static void let_go(struct unshard_checkpoint *layout)
{
    if (layout)
        unshard_layout_release(layout);
}

/* Caller holds the mutex. */
static struct open_directory *find_handle(uint64_t number)
{
    struct open_directory *handle = open_directories[number % BUCKETS];
    while (handle && handle->number != number)
        handle = handle->next;
    return handle;
}

/* Caller holds the mutex. NULL when memory is short. */
static struct open_directory *add_handle(uint64_t number)
{
    struct open_directory *handle = calloc(1, sizeof *handle);
    struct open_directory **bucket = &open_directories[number % BUCKETS];
    if (!handle)
        return NULL;
    handle->number = number;
    handle->next = *bucket;
    if (*bucket)
        (*bucket)->previous = handle;
    *bucket = handle;
    return handle;
}

/* A new number; 0 when memory is short. */
static uint64_t new_handle(void)
{
    pthread_mutex_lock(&open_mutex);
    struct open_directory *handle = add_handle(last_number + 1);
    uint64_t number = handle ? ++last_number : 0;
    pthread_mutex_unlock(&open_mutex);
    return number;
}

/* What it lists, for the caller to release; without a layout when that is still to be found. */
static struct unshard_place hold_place(uint64_t number)
{
    struct unshard_place place = {0};
    pthread_mutex_lock(&open_mutex);
    const struct open_directory *handle = find_handle(number);
    if (handle)
        place = handle->place;
    if (place.layout)
        unshard_layout_hold(place.layout);
    pthread_mutex_unlock(&open_mutex);
    return place;
}

/* It lists this from now on. Without memory it is looked at again each time. */
static void set_place(uint64_t number, const struct unshard_place *place)
{
    struct unshard_checkpoint *old = NULL;
    pthread_mutex_lock(&open_mutex);
    struct open_directory *handle = find_handle(number);
    if (!handle)
        handle = add_handle(number);
    if (handle) {
        old = handle->place.layout;
        handle->place = *place;
        unshard_layout_hold(place->layout);
    }
    pthread_mutex_unlock(&open_mutex);
    let_go(old);
}

static void end_handle(uint64_t number)
{
    pthread_mutex_lock(&open_mutex);
    struct open_directory *handle = find_handle(number);
    if (handle) {
        *(handle->previous ? &handle->previous->next : &open_directories[number % BUCKETS]) =
            handle->next;
        if (handle->next)
            handle->next->previous = handle->previous;
    }
    pthread_mutex_unlock(&open_mutex);
    if (handle)
        let_go(handle->place.layout);
    free(handle);
}

void directories_end(void)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        while (open_directories[i])
            end_handle(open_directories[i]->number);
}

void directories_open(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      const struct fuse_file_info *info)
{
    struct inode *inode = inode_table_get(filesystem->inodes, nodeid);
    bool directory = inode && inode->kind == UNSHARD_NODE_DIRECTORY;
    struct fuse_file_info out = {.flags = info->flags};
    if (directory)
        out.fh = new_handle(); /* none for `.unshard` */
    if (directory && !out.fh)
        fuse_reply_err(request, ENOMEM);
    else if (!directory && !nodes_is_status_directory(nodeid))
        fuse_reply_err(request, inode ? ENOTDIR : ENOENT);
    else if (fuse_reply_open(request, &out)) /* the reader is gone: no RELEASEDIR will come */
        end_handle(out.fh);
    inode_table_put(filesystem->inodes, inode);
}

void directories_release(struct fuse_req *request, const struct fuse_file_info *info)
{
    end_handle(info->fh);
    fuse_reply_err(request, 0);
}

/* ---- listings ----------------------------------------------------------------------------------
 */

/* One reply being built. */
struct listing {
    struct filesystem *filesystem;
    fuse_req_t request;
    const struct unshard_place *place; /* NULL: `.unshard` */
    const struct inode *inode;         /* of the directory; NULL: `.unshard` */
    const char *path;                  /* of the directory below the source */
    const struct unshard_node *directory;
    bool plus;
    char *buffer;
    size_t capacity, used;
    struct inode **inodes; /* what the kernel is told of, with references */
    size_t inode_count;
};

/* Adds one entry; false when it does not fit any more. */
static bool add(struct listing *listing, const char *name, const struct fuse_entry_param *entry,
                uint64_t offset)
{
    char *end = listing->buffer + listing->used;
    size_t room = listing->capacity - listing->used;
    size_t length = listing->plus ? fuse_add_direntry_plus(listing->request, end, room, name, entry,
                                                           (off_t)(offset + 1))
                                  : fuse_add_direntry(listing->request, end, room, name,
                                                      &entry->attr, (off_t)(offset + 1));
    if (length > room)
        return false;
    listing->used += length;
    return true;
}

/* "." and "..": no lookups, and only number and type are told. */
static bool add_dots(struct listing *listing, uint64_t offset)
{
    struct inode_table *inodes = listing->filesystem->inodes;
    struct fuse_entry_param entry = {.attr.st_mode = S_IFDIR};
    if (!listing->inode && offset == 0)
        nodes_status_attributes(listing->filesystem, -1, &entry.attr);
    else if (offset == 0)
        entry.attr.st_ino = listing->inode->number;
    else
        entry.attr.st_ino = inode_table_above(inodes, listing->path);
    return add(listing, offset == 0 ? "." : "..", &entry, offset);
}

static bool add_status_file(struct listing *listing, uint64_t offset)
{
    struct fuse_entry_param entry;
    int file = (int)(offset - 2);
    nodes_status_entry(listing->filesystem, file, &entry);
    return add(listing, status_file_name((unsigned)file), &entry, offset);
}

/* Only name, number and type. */
static bool add_name(struct listing *listing, const struct unshard_node *node, const char *path,
                     const struct unshard_place *place, uint64_t offset)
{
    struct fuse_entry_param entry = {.attr = {.st_ino = node->inode, .st_mode = node->mode}};
    struct inode *known = inode_table_find(listing->filesystem->inodes, path, place);
    if (known)
        entry.attr.st_ino = known->number;
    inode_table_put(listing->filesystem->inodes, known);
    return add(listing, node->name, &entry, offset);
}

/* All that a LOOKUP would tell, and it counts as one. */
static bool add_node(struct listing *listing, const struct unshard_node *node, const char *path,
                     const struct unshard_place *place, uint64_t offset)
{
    struct fuse_entry_param entry;
    struct inode_table *inodes = listing->filesystem->inodes;
    struct inode *inode = inode_table_enter(inodes, path, place);
    if (!inode)
        return false;
    nodes_entry(listing->filesystem, inode, place, &entry);
    if (!add(listing, node->name, &entry, offset)) {
        inode_table_put(inodes, inode);
        return false;
    }
    inode_table_lookup(inodes, inode);
    listing->inodes[listing->inode_count++] = inode;
    return true;
}

static bool add_child(struct listing *listing, uint64_t offset)
{
    const struct unshard_place *directory = listing->place;
    struct unshard_place place = {.layout = directory->layout,
                                  .node = listing->directory->first_child + (uint32_t)(offset - 2)};
    const struct unshard_node *node = unshard_node(place.layout, place.node);
    if (node->unlisted)
        return true;
    char *path = nodes_path(listing->path, node->name);
    bool added = path && (listing->plus ? add_node(listing, node, path, &place, offset)
                                        : add_name(listing, node, path, &place, offset));
    free(path);
    return added;
}

static bool add_entry(struct listing *listing, uint64_t offset)
{
    if (offset < 2)
        return add_dots(listing, offset);
    return listing->directory ? add_child(listing, offset) : add_status_file(listing, offset);
}

/* After the reply: the entries are known to the kernel, or their lookups are taken back. */
static void settle(const struct listing *listing, bool reached)
{
    struct inode_table *inodes = listing->filesystem->inodes;
    for (size_t i = 0; i < listing->inode_count; i++) {
        if (reached)
            inode_table_replied(inodes, listing->inodes[i]);
        else
            inode_table_forget(inodes, listing->inodes[i]->id, 1);
        inode_table_put(inodes, listing->inodes[i]);
    }
}

static void reply(struct listing *listing, uint64_t offset)
{
    uint64_t count =
        2 + (listing->directory ? listing->directory->child_count : status_file_count());
    while (offset < count && add_entry(listing, offset))
        offset++;
    settle(listing, fuse_reply_buf(listing->request, listing->buffer, listing->used) == 0);
}

/* inode and place: NULL for `.unshard`. */
static void list(struct filesystem *filesystem, fuse_req_t request, const struct inode *inode,
                 const struct unshard_place *place, size_t size, off_t offset, bool plus)
{
    struct listing listing = {
        .filesystem = filesystem,
        .request = request,
        .place = place,
        .inode = inode,
        .path = inode ? inode->path : "",
        .directory = place ? unshard_node(place->layout, place->node) : NULL,
        .plus = plus,
        .capacity = size < LARGEST_REPLY ? size : LARGEST_REPLY,
    };
    listing.buffer = malloc(listing.capacity + 1);
    listing.inodes = calloc(listing.capacity / LEAST_ENTRY + 1, sizeof(struct inode *));
    if (listing.buffer && listing.inodes)
        reply(&listing, (uint64_t)offset);
    else
        fuse_reply_err(request, ENOMEM);
    free(listing.buffer);
    free(listing.inodes);
}

static void answer_read(struct errand *errand, fuse_req_t request, int result,
                        struct unshard_place *place)
{
    if (result == 0 && unshard_node(place->layout, place->node)->kind != UNSHARD_NODE_DIRECTORY)
        result = -ENOTDIR;
    if (result) {
        fuse_reply_err(request, -result);
        return;
    }
    set_place(errand->handle, place);
    list(errand->filesystem, request, errand->inode, place, errand->size, errand->offset,
         errand->flags != 0);
}

/* From its beginning a directory is listed as it is now. Takes the reference. */
static void look_and_list(struct filesystem *filesystem, fuse_req_t request, struct inode *inode,
                          uint64_t handle, size_t size, off_t offset, bool plus)
{
    struct errand errand = {.filesystem = filesystem,
                            .inode = inode,
                            .directory = strdup(inode->path),
                            .handle = handle,
                            .flags = plus,
                            .size = size,
                            .offset = offset,
                            .answer = answer_read};
    if (errand.directory)
        errand_begin(&errand, request);
    else
        errand_refuse(&errand, request, ENOMEM);
}

void directories_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                      const struct fuse_file_info *info, size_t size, off_t offset, bool plus)
{
    struct inode *inode = inode_table_get(filesystem->inodes, nodeid);
    uint64_t handle = info->fh;
    if (offset < 0 || !inode != !handle) {
        fuse_reply_err(request, EINVAL);
        inode_table_put(filesystem->inodes, inode);
        return;
    }
    struct unshard_place place = {0};
    if (handle && offset > 0)
        place = hold_place(handle);
    if (handle && !place.layout) {
        look_and_list(filesystem, request, inode, handle, size, offset, plus);
        return;
    }
    list(filesystem, request, inode, handle ? &place : NULL, size, offset, plus);
    let_go(place.layout);
    inode_table_put(filesystem->inodes, inode);
}
