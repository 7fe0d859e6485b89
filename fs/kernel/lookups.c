/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/lookups.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fs/host/monotonic.h"
#include "fs/kernel/errands.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/status_files.h"
#include "fs/kernel/whole.h"

/* ---- LOOKUP ------------------------------------------------------------------------------------
 */

/* The kernel remembers for a moment that there is nothing. */
static void reply_nothing(fuse_req_t request)
{
    struct fuse_entry_param nothing = {.entry_timeout = NODES_TIMEOUT};
    fuse_reply_entry(request, &nothing);
}

static void reply_entry(struct filesystem *filesystem, fuse_req_t request, const char *path,
                        const struct unshard_place *place)
{
    struct fuse_entry_param entry;
    struct inode *inode = inode_table_enter(filesystem->inodes, path, place);
    if (!inode) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    nodes_entry(filesystem, inode, place, &entry);
    inode_table_lookup(filesystem->inodes, inode);
    if (fuse_reply_entry(request, &entry))
        inode_table_forget(filesystem->inodes, inode->id, 1);
    else
        inode_table_replied(filesystem->inodes, inode);
    inode_table_put(filesystem->inodes, inode);
    inode_table_tidy(filesystem->inodes, monotonic_ms());
}

static void answer_find(struct errand *errand, fuse_req_t request, int result,
                        struct unshard_place *place)
{
    char *path = result == 0 ? nodes_path(errand->directory, errand->name) : NULL;
    if (result == -ENOENT)
        reply_nothing(request);
    else if (result)
        fuse_reply_err(request, -result);
    else if (!path)
        fuse_reply_err(request, ENOMEM);
    else
        reply_entry(errand->filesystem, request, path, place);
    free(path);
}

static void find_status(const struct filesystem *filesystem, fuse_req_t request, int file)
{
    struct fuse_entry_param entry;
    nodes_status_entry(filesystem, file, &entry);
    fuse_reply_entry(request, &entry); /* the kernel's count of these is of no interest */
}

/* Takes the reference to the directory. */
static void find_in(struct filesystem *filesystem, fuse_req_t request, struct inode *directory,
                    const char *name)
{
    struct errand errand = {.filesystem = filesystem,
                            .inode = directory,
                            .directory = strdup(directory->path),
                            .name = strdup(name),
                            .answer = answer_find};
    if (errand.directory && errand.name)
        errand_begin(&errand, request);
    else
        errand_refuse(&errand, request, ENOMEM);
}

void lookups_find(struct filesystem *filesystem, struct fuse_req *request, uint64_t parent,
                  const char *name)
{
    int file = nodes_is_status_directory(parent) ? status_file_find(name) : -1;
    if (file >= 0 || (parent == INODE_ROOT && !strcmp(name, STATUS_DIRECTORY_NAME))) {
        find_status(filesystem, request, file);
        return;
    }
    if (nodes_is_status_directory(parent)) {
        reply_nothing(request);
        return;
    }
    struct inode *directory = inode_table_get(filesystem->inodes, parent);
    if (directory && directory->kind == UNSHARD_NODE_DIRECTORY) {
        find_in(filesystem, request, directory, name);
        return;
    }
    fuse_reply_err(request, directory ? ENOTDIR : ENOENT);
    inode_table_put(filesystem->inodes, directory);
}

/* ---- GETATTR -----------------------------------------------------------------------------------
 */

static void reply_attributes(struct errand *errand, fuse_req_t request,
                             const struct unshard_place *place)
{
    struct stat attributes;
    nodes_attributes(errand->filesystem, errand->inode, place, &attributes);
    fuse_reply_attr(request, &attributes, NODES_TIMEOUT);
}

/* Of a file whose name leads elsewhere by now, or nowhere: what it was. */
static void reply_sight(struct errand *errand, fuse_req_t request)
{
    struct inode_sight sight;
    if (inode_table_sight(errand->filesystem->inodes, errand->inode, &sight)) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    if (sight.place.layout)
        reply_attributes(errand, request, &sight.place);
    else /* nobody has it open */
        fuse_reply_err(request, ESTALE);
    inode_sight_release(&sight);
}

/* Whether it is what is there now. `more` is its path. */
static bool is_there(const struct errand *errand, const struct unshard_place *place)
{
    struct inode_table *inodes = errand->filesystem->inodes;
    struct inode *there = inode_table_find(inodes, errand->more, place);
    bool same = there == errand->inode;
    inode_table_put(inodes, there);
    return same;
}

static void answer_attributes(struct errand *errand, fuse_req_t request, int result,
                              struct unshard_place *place)
{
    if (result == 0 && is_there(errand, place))
        reply_attributes(errand, request, place);
    else if (errand->inode->kind == UNSHARD_NODE_FILE)
        reply_sight(errand, request);
    else /* the kernel asks for the name again, if there was one */
        fuse_reply_err(request, result == 0 || result == -ENOENT ? ESTALE : -result);
}

/* The kernel asks for those of the root before it goes on to `.unshard`, which is to be read
 * however sick the source is: so nobody waits for it here. Takes the reference. */
static void ask_root(struct filesystem *filesystem, fuse_req_t request, struct inode *root)
{
    struct errand errand = {.filesystem = filesystem, .inode = root};
    struct unshard_place place = {.layout = inode_table_root_layout(filesystem->inodes)};
    struct unshard_place now;
    int result = unshard_tree_look_now(filesystem->tree, "", &now);
    if (result == 0)
        reply_attributes(&errand, request, &now);
    else if (place.layout)
        reply_attributes(&errand, request, &place);
    else
        fuse_reply_err(request, result == -EAGAIN ? ENOMEM : -result);
    if (result == 0) {
        whole_seen(filesystem, "", &now);
        inode_table_see_root(filesystem->inodes, now.layout);
        unshard_layout_release(now.layout);
    } else {
        errand_look_at_root(filesystem);
    }
    if (place.layout)
        unshard_layout_release(place.layout);
    inode_table_put(filesystem->inodes, root);
}

/* Takes the reference. */
static void ask_attributes(struct filesystem *filesystem, fuse_req_t request, struct inode *inode)
{
    struct errand errand = {.filesystem = filesystem, .inode = inode, .answer = answer_attributes};
    if (inode->kind == UNSHARD_NODE_FILE &&
        inode_table_view(filesystem->inodes, inode) != UNSHARD_NO_VIEW) {
        reply_sight(&errand, request); /* the engine knows them */
        inode_table_put(filesystem->inodes, inode);
    } else if (errand_look_for_inode(&errand) == 0) {
        errand_begin(&errand, request);
    } else {
        errand_refuse(&errand, request, ENOMEM);
    }
}

void lookups_attributes(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid)
{
    int file = nodes_status_file(nodeid);
    struct inode *inode = inode_table_get(filesystem->inodes, nodeid);
    if (nodeid == INODE_ROOT) {
        ask_root(filesystem, request, inode);
    } else if (inode) {
        ask_attributes(filesystem, request, inode);
    } else if (file >= 0 || nodes_is_status_directory(nodeid)) {
        struct fuse_entry_param entry;
        nodes_status_entry(filesystem, file, &entry);
        fuse_reply_attr(request, &entry.attr, entry.attr_timeout);
    } else {
        fuse_reply_err(request, ENOENT);
    }
}

/* ---- READLINK ----------------------------------------------------------------------------------
 */

void lookups_link(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid)
{
    struct inode *inode = inode_table_get(filesystem->inodes, nodeid);
    if (!inode || inode->kind != UNSHARD_NODE_SYMLINK)
        fuse_reply_err(request, EINVAL);
    else
        fuse_reply_readlink(request, inode->target);
    inode_table_put(filesystem->inodes, inode);
}
