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

/* A handle says only whether it was opened for direct reads, since the flags of a handle can be
 * changed later: whoever goes on with the mount must make sense of it. As long as it is open there
 * is a reference to the node, which keeps it attached. */
#define HANDLE_DIRECT 1u

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
    struct fuse_file_info info = {.flags = flags, .fh = direct ? HANDLE_DIRECT : 0};
    info.keep_cache = 1; /* otherwise the kernel throws away what has been stored */
    info.noflush = 1;
    inode_table_opened(filesystem->inodes, inode, direct, 1);
    companions_begin(filesystem, inode, view);
    if (fuse_reply_open(request, &info)) /* the reader is gone: no RELEASE will come */
        inode_table_opened(filesystem->inodes, inode, direct, -1);
    else
        inode_table_keep_handles(filesystem->inodes, inode);
}

static void answer_attached(struct errand *errand, fuse_req_t request, int result,
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
    if (unshard_engine_view_stale(filesystem->engine, view) ||
        !inode_table_readable(filesystem->inodes, inode))
        fuse_reply_err(request, EIO);
    else
        reply_open(filesystem, request, inode, view, errand->flags);
}

/* Whether its name leads to another file by now, or nowhere. Where that cannot be found out,
 * because storage does not answer, what has been read of it is still there. */
static bool has_gone(const struct errand *errand, int result, const struct unshard_place *place)
{
    struct inode_table *inodes = errand->filesystem->inodes;
    if (result != 0)
        return result == -ENOENT || result == -ENOTDIR;
    struct inode *there = inode_table_enter(inodes, errand->more, place);
    bool gone = there != errand->inode;
    inode_table_put(inodes, there);
    return gone;
}

/* What the kernel remembers of a name may be a moment old. When it is told ESTALE it asks again,
 * and opens what is there now. */
static void answer_open(struct errand *errand, fuse_req_t request, int result,
                        struct unshard_place *place)
{
    struct filesystem *filesystem = errand->filesystem;
    if (has_gone(errand, result, place)) {
        fuse_reply_err(request, ESTALE);
        return;
    }
    struct errand next = {.filesystem = filesystem,
                          .inode = errand->inode,
                          .flags = errand->flags,
                          .answer = answer_attached};
    inode_table_hold(filesystem->inodes, errand->inode);
    errand_begin(&next, request);
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
    if (errand_look_for_inode(&errand) == 0)
        errand_begin(&errand, request);
    else
        errand_refuse(&errand, request, ENOMEM);
}

void opening_release(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                     const struct fuse_file_info *info)
{
    struct inode *inode = get_file(filesystem, nodeid);
    if (inode)
        inode_table_opened(filesystem->inodes, inode, (info->fh & HANDLE_DIRECT) != 0, -1);
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

static void read_view(struct filesystem *filesystem, fuse_req_t request, uint32_t view,
                      uint64_t offset, size_t size, int flags)
{
    if (flags & O_DIRECT)
        unshard_engine_read_direct(filesystem->engine, view, offset, size, read_done, request);
    else /* more than a page is read-ahead: when it fails, the kernel asks for each page by itself
          */
        unshard_engine_read_ahead(filesystem->engine, view, offset, size, read_done, request);
}

static void answer_read(struct errand *errand, fuse_req_t request, int result,
                        struct unshard_place *place)
{
    (void)place;
    struct filesystem *filesystem = errand->filesystem;
    uint32_t view = inode_table_view(filesystem->inodes, errand->inode);
    if (result || view == UNSHARD_NO_VIEW)
        fuse_reply_err(request, result ? -result : EIO);
    else
        read_view(filesystem, request, view, (uint64_t)errand->offset, errand->size, errand->flags);
}

/* A file that an earlier process had attached, and that is read on: it is attached again, if it is
 * still what its name leads to. Takes the reference. */
static void read_on(struct filesystem *filesystem, fuse_req_t request, struct inode *inode,
                    uint64_t offset, size_t size, int flags)
{
    struct errand errand = {.filesystem = filesystem,
                            .inode = inode,
                            .flags = flags,
                            .offset = (off_t)offset,
                            .size = size,
                            .answer = answer_read};
    errand_begin(&errand, request);
}

void opening_read(struct filesystem *filesystem, struct fuse_req *request, uint64_t nodeid,
                  uint64_t offset, size_t size, const struct fuse_file_info *info)
{
    struct inode *inode = get_file(filesystem, nodeid);
    uint32_t view = inode ? inode_table_view(filesystem->inodes, inode) : UNSHARD_NO_VIEW;
    if (!inode) {
        fuse_reply_err(request, ESTALE);
    } else if (view == UNSHARD_NO_VIEW) {
        read_on(filesystem, request, inode, offset, size, info->flags);
    } else {
        read_view(filesystem, request, view, offset, size, info->flags);
        inode_table_put(filesystem->inodes, inode);
    }
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
    } else if (errand.more) {
        answer_attribute(&errand, request, 0, NULL);
        free(errand.more);
        inode_table_put(filesystem->inodes, inode);
    } else {
        errand_refuse(&errand, request, inode ? ENOMEM : ENODATA);
    }
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
