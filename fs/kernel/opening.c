/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/opening.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/companions.h"
#include "fs/kernel/errands.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/xattrs.h"

/* A handle is the engine's number of the view, and whether it was opened for direct reads: the
 * flags of a handle can be changed later. As long as it is open there is a reference to the node,
 * which keeps it attached. */
#define HANDLE_DIRECT (UINT64_C(1) << 32)

static uint32_t view_of(uint64_t handle)
{
    return (uint32_t)handle;
}

/* The file behind a node id, with a reference; or NULL. */
static struct inode *get_file(const struct filesystem *filesystem, uint64_t nodeid)
{
    struct inode *inode = inode_table_get(filesystem->inodes, nodeid);
    if (!inode || inode->kind == UNSHARD_NODE_FILE)
        return inode;
    inode_table_put(filesystem->inodes, inode);
    return NULL;
}

/* ---- OPEN --------------------------------------------------------------------------------------
 */

static void reply_open(struct filesystem *filesystem, fuse_req_t request, struct inode *inode,
                       uint32_t view, int flags)
{
    bool direct = (flags & O_DIRECT) != 0;
    struct fuse_file_info info = {.flags = flags, .fh = view | (direct ? HANDLE_DIRECT : 0)};
    info.keep_cache = 1; /* otherwise the kernel throws away what has been stored */
    info.noflush = 1;
    inode_table_hold(filesystem->inodes, inode);
    unshard_engine_view_opened(filesystem->engine, view, direct, 1);
    companions_begin(filesystem, inode, view);
    if (fuse_reply_open(request, &info) == 0)
        return;
    unshard_engine_view_opened(filesystem->engine, view, direct, -1); /* the reader is gone: no */
    inode_table_put(filesystem->inodes, inode);                       /* RELEASE will come */
}

/* What the file was made from is no more. If its name leads to another one by now the kernel asks
 * for that (it does so once when it is told ESTALE). */
static void answer_stale(struct errand *errand, fuse_req_t request, int result,
                         struct unshard_place *place)
{
    struct inode_table *inodes = errand->filesystem->inodes;
    char *path = errand->more;
    struct inode *there = result == 0 ? inode_table_enter(inodes, path, place) : NULL;
    fuse_reply_err(request, there == errand->inode ? EIO : ESTALE);
    inode_table_put(inodes, there);
}

/* Takes the reference. */
static void refuse_stale(struct filesystem *filesystem, fuse_req_t request, struct inode *inode)
{
    struct errand errand = {.filesystem = filesystem, .inode = inode, .answer = answer_stale};
    struct inode_sight sight;
    int result = inode_table_sight(filesystem->inodes, inode, &sight);
    if (result == 0) {
        result = errand_look_for(&errand, sight.path);
        errand.more = strdup(sight.path);
        inode_sight_release(&sight);
    }
    if (result == 0 && errand.more) {
        errand_begin(&errand, request);
        return;
    }
    fuse_reply_err(request, EIO);
    free(errand.directory);
    free(errand.name);
    free(errand.more);
    inode_table_put(filesystem->inodes, inode);
}

static void answer_open(struct errand *errand, fuse_req_t request, int result,
                        struct unshard_place *place)
{
    (void)place;
    struct filesystem *filesystem = errand->filesystem;
    struct inode *inode = errand->inode;
    if (result) {
        fuse_reply_err(request, -result);
        return;
    }
    uint32_t view = inode_table_view(filesystem->inodes, inode);
    if (unshard_engine_view_stale(filesystem->engine, view)) {
        inode_table_hold(filesystem->inodes, inode);
        refuse_stale(filesystem, request, inode);
    } else if (!inode_table_readable(filesystem->inodes, inode)) {
        fuse_reply_err(request, EIO);
    } else {
        reply_open(filesystem, request, inode, view, errand->flags);
    }
}

void opening_open(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                  const struct fuse_file_info *info)
{
    struct inode *inode = get_file(filesystem, nodeid);
    if (!inode) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct errand errand = {
        .filesystem = filesystem, .inode = inode, .flags = info->flags, .answer = answer_open};
    errand_begin(&errand, request);
}

void opening_release(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                     const struct fuse_file_info *info)
{
    struct inode *inode = get_file(filesystem, nodeid);
    if (inode) {
        unshard_engine_view_opened(filesystem->engine, view_of(info->fh),
                                   (info->fh & HANDLE_DIRECT) != 0, -1);
        inode_table_put(filesystem->inodes, inode); /* that of the handle */
    }
    inode_table_put(filesystem->inodes, inode);
    fuse_reply_err(request, 0);
}

/* ---- READ --------------------------------------------------------------------------------------
 */

/* The only place where a READ of a view is answered. */
static void read_done(void *cookie, int error, const void *data, size_t size)
{
    fuse_req_t request = cookie;
    if (error)
        fuse_reply_err(request, error == EAGAIN ? EIO : error);
    else
        fuse_reply_buf(request, data, size);
}

void opening_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t offset,
                  size_t size, const struct fuse_file_info *info)
{
    uint32_t view = view_of(info->fh);
    if (info->flags & O_DIRECT)
        unshard_engine_read_direct(filesystem->engine, view, offset, size, read_done, request);
    else /* more than a page is read-ahead: when it fails, the kernel asks for each page by itself
          */
        unshard_engine_read_ahead(filesystem->engine, view, offset, size, read_done, request);
}

/* ---- extended attributes -----------------------------------------------------------------------
 */

/* The two-step protocol of xattrs: size 0 asks how long the value is. */
static void reply_attribute(fuse_req_t request, const char *value, size_t length, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(request, length);
    else if (size < length)
        fuse_reply_err(request, ERANGE);
    else
        fuse_reply_buf(request, value, length);
}

static void answer_attribute(struct errand *errand, fuse_req_t request, int result,
                             struct unshard_place *place)
{
    (void)place;
    char *value = NULL;
    ssize_t length = result;
    if (result == 0)
        length = xattr_value(errand->filesystem, errand->inode, errand->more, &value);
    if (length < 0)
        fuse_reply_err(request, (int)-length);
    else
        reply_attribute(request, value, (size_t)length, errand->size);
    free(value);
}

void opening_get_attribute(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                           const char *name, size_t size)
{
    enum xattr_need need = xattr_need(name);
    struct inode *inode = need == XATTR_UNKNOWN ? NULL : get_file(filesystem, nodeid);
    struct errand errand = {.filesystem = filesystem,
                            .inode = inode,
                            .more = inode ? strdup(name) : NULL,
                            .size = size,
                            .answer = answer_attribute};
    if (errand.more && need == XATTR_OF_ENGINE) {
        errand_begin(&errand, request);
        return;
    }
    if (errand.more)
        answer_attribute(&errand, request, 0, NULL);
    else
        fuse_reply_err(request, inode ? ENOMEM : ENODATA);
    free(errand.more);
    inode_table_put(filesystem->inodes, inode);
}

void opening_list_attributes(struct filesystem *filesystem, struct fuse_req *request,
                             uint64_t nodeid, size_t size)
{
    struct inode *inode = get_file(filesystem, nodeid);
    size_t length = 0;
    const char *names = inode ? xattr_names(&length) : "";
    reply_attribute(request, names, length, size);
    inode_table_put(filesystem->inodes, inode);
}
