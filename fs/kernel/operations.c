/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/kernel/control.h"
#include "fs/kernel/directories.h"
#include "fs/kernel/features.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/status_files.h"
#include "fs/kernel/xattrs.h"

static struct filesystem *filesystem_of(fuse_req_t request)
{
    return fuse_req_userdata(request);
}

static void on_init(void *userdata, struct fuse_conn_info *connection)
{
    struct filesystem *filesystem = userdata;
    features_negotiate(connection);
    if (filesystem->initialised_fd >= 0 && eventfd_write(filesystem->initialised_fd, 1))
        errno = 0; /* nobody waits any more */
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct filesystem *filesystem = filesystem_of(request);
    struct fuse_entry_param entry = {0};
    int result = nodes_find(filesystem, parent, name, &entry);
    if (result) {
        fuse_reply_err(request, -result);
        return;
    }
    if (!entry.ino) { /* a negative entry: the kernel remembers that there is nothing */
        fuse_reply_entry(request, &entry);
        return;
    }
    inode_table_lookup(filesystem->inodes, entry.ino);
    if (fuse_reply_entry(request, &entry))
        inode_table_forget(filesystem->inodes, entry.ino, 1);
    else
        inode_table_replied(filesystem->inodes, entry.ino);
}

static void on_forget(fuse_req_t request, fuse_ino_t ino, uint64_t count)
{
    inode_table_forget(filesystem_of(request)->inodes, ino, count);
    fuse_reply_none(request);
}

static void on_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        inode_table_forget(filesystem_of(request)->inodes, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(request);
}

static void on_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)info;
    struct stat attributes;
    double timeout;
    int result = nodes_attributes(filesystem_of(request), ino, &attributes, &timeout);
    if (result)
        fuse_reply_err(request, -result);
    else
        fuse_reply_attr(request, &attributes, timeout);
}

static void on_readlink(fuse_req_t request, fuse_ino_t ino)
{
    const struct unshard_node *node = inode_table_node(filesystem_of(request)->inodes, ino);
    if (!node || node->kind != UNSHARD_NODE_SYMLINK)
        fuse_reply_err(request, EINVAL);
    else
        fuse_reply_readlink(request, node->target);
}

static void open_status(fuse_req_t request, int file, struct fuse_file_info *info)
{
    struct status_snapshot *snapshot = status_snapshot_take(
        (unsigned)file, filesystem_of(request)->engine, fuse_req_ctx(request)->uid);
    if (!snapshot) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    info->fh = (uint64_t)(uintptr_t)snapshot;
    info->direct_io = 1;
    info->noflush = 1;
    if (fuse_reply_open(request, info))
        status_snapshot_release(snapshot);
}

static void on_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct filesystem *filesystem = filesystem_of(request);
    if ((info->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(request, EROFS);
        return;
    }
    int file = nodes_status_file(filesystem, ino);
    if (file >= 0) {
        open_status(request, file, info);
        return;
    }
    const struct unshard_node *node = inode_table_node(filesystem->inodes, ino);
    if (!node || node->view == UNSHARD_NO_VIEW) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    if (!unshard_view_readable(filesystem->checkpoint, node->view) ||
        unshard_engine_view_stale(filesystem->engine, node->view)) {
        fuse_reply_err(request, EIO);
        return;
    }
    info->keep_cache = 1; /* otherwise the kernel throws away what has been stored */
    info->noflush = 1;
    bool direct = (info->flags & O_DIRECT) != 0;
    info->fh = direct; /* the flags of a handle can be changed later */
    unshard_engine_view_opened(filesystem->engine, node->view, direct, 1);
    if (fuse_reply_open(request, info)) /* the reader is gone: no RELEASE will come */
        unshard_engine_view_opened(filesystem->engine, node->view, direct, -1);
}

static void on_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct filesystem *filesystem = filesystem_of(request);
    const struct unshard_node *node = inode_table_node(filesystem->inodes, ino);
    if (nodes_status_file(filesystem, ino) >= 0)
        status_snapshot_release((struct status_snapshot *)(uintptr_t)info->fh);
    else if (node && node->view != UNSHARD_NO_VIEW)
        unshard_engine_view_opened(filesystem->engine, node->view, info->fh != 0, -1);
    fuse_reply_err(request, 0);
}

/* Once it is answered the file may be closed and released before we get on: hence the reference. */
static void read_status(fuse_req_t request, struct status_snapshot *snapshot, uint64_t offset,
                        size_t size)
{
    size_t length;
    const char *text = status_snapshot_begin_read(snapshot, &length);
    if (!text) {
        fuse_reply_err(request, ESTALE);
        return;
    }
    if (offset > length)
        offset = length;
    if (size > length - offset)
        size = length - (size_t)offset;
    fuse_reply_buf(request, text + offset, size);
    status_snapshot_end_read(snapshot);
}

/* The only place where a READ of a view is answered. */
static void read_done(void *cookie, int error, const void *data, size_t size)
{
    fuse_req_t request = cookie;
    if (error)
        fuse_reply_err(request, error == EAGAIN ? EIO : error);
    else
        fuse_reply_buf(request, data, size);
}

static void on_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    struct filesystem *filesystem = filesystem_of(request);
    if (nodes_status_file(filesystem, ino) >= 0) {
        read_status(request, (struct status_snapshot *)(uintptr_t)info->fh, (uint64_t)offset, size);
        return;
    }
    const struct unshard_node *node = inode_table_node(filesystem->inodes, ino);
    if (!node || node->view == UNSHARD_NO_VIEW || offset < 0)
        fuse_reply_err(request, EINVAL);
    else if (info->flags & O_DIRECT)
        unshard_engine_read_direct(filesystem->engine, node->view, (uint64_t)offset, size,
                                   read_done, request);
    else /* more than a page is read-ahead: when it fails, the kernel asks for each page by itself
          */
        unshard_engine_read_ahead(filesystem->engine, node->view, (uint64_t)offset, size, read_done,
                                  request);
}

/* From a thread of the daemon's own user, or from root. */
static bool may_control(fuse_req_t request)
{
    uid_t user = fuse_req_ctx(request)->uid;
    return user == 0 || user == geteuid();
}

static void on_ioctl(fuse_req_t request, fuse_ino_t ino, unsigned command, void *argument,
                     struct fuse_file_info *info, unsigned flags, const void *input,
                     size_t input_size, size_t output_size)
{
    (void)argument, (void)info;
    struct filesystem *filesystem = filesystem_of(request);
    struct control_message message = {0};
    if ((flags & FUSE_IOCTL_DIR) || nodes_status_file(filesystem, ino) < 0 ||
        input_size > sizeof message || output_size != sizeof message) {
        fuse_reply_err(request, ENOTTY);
        return;
    }
    if (!may_control(request)) {
        fuse_reply_err(request, EPERM);
        return;
    }
    if (input_size > 0)
        memcpy(&message, input, input_size);
    int result = control_request(filesystem, command, &message);
    if (result)
        fuse_reply_err(request, -result);
    else
        fuse_reply_ioctl(request, 0, &message, sizeof message);
}

static void on_statfs(fuse_req_t request, fuse_ino_t ino)
{
    (void)ino;
    struct filesystem *filesystem = filesystem_of(request);
    struct statvfs totals = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = filesystem->total_bytes / 4096 + 1,
        .f_files = unshard_node_count(filesystem->checkpoint),
        .f_namemax = 255,
        .f_flag = ST_RDONLY,
    };
    fuse_reply_statfs(request, &totals);
}

/* The two-step protocol of xattrs: size 0 asks how long the value is. */
static void reply_xattr(fuse_req_t request, const char *value, size_t length, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(request, length);
    else if (size < length)
        fuse_reply_err(request, ERANGE);
    else
        fuse_reply_buf(request, value, length);
}

static void on_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t size)
{
    struct filesystem *filesystem = filesystem_of(request);
    const struct unshard_node *node = inode_table_node(filesystem->inodes, ino);
    char *value = NULL;
    ssize_t length = -ENODATA;
    if (node && node->view != UNSHARD_NO_VIEW)
        length = xattr_value(filesystem, node->view, name, &value);
    if (length < 0)
        fuse_reply_err(request, (int)-length);
    else
        reply_xattr(request, value, (size_t)length, size);
    free(value);
}

static void on_listxattr(fuse_req_t request, fuse_ino_t ino, size_t size)
{
    const struct unshard_node *node = inode_table_node(filesystem_of(request)->inodes, ino);
    size_t length = 0;
    const char *names = "";
    if (node && node->view != UNSHARD_NO_VIEW)
        names = xattr_names(&length);
    reply_xattr(request, names, length, size);
}

static void on_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *info)
{
    (void)info;
    directories_read(filesystem_of(request), request, ino, size, offset, false);
}

static void on_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *info)
{
    (void)info;
    directories_read(filesystem_of(request), request, ino, size, offset, true);
}

static void on_retrieve_reply(fuse_req_t request, void *cookie, fuse_ino_t ino, off_t offset,
                              struct fuse_bufvec *bytes)
{
    (void)ino, (void)offset;
    retriever_answer(filesystem_of(request)->retriever, (uint64_t)(uintptr_t)cookie, bytes);
    fuse_reply_none(request);
}

const struct fuse_lowlevel_ops *operations_table(void)
{
    /* No flush: the kernel learns with the first one not to send them. What modifies is refused by
     * the kernel, the mount being read-only. */
    static const struct fuse_lowlevel_ops operations = {
        .init = on_init,
        .lookup = on_lookup,
        .forget = on_forget,
        .forget_multi = on_forget_multi,
        .getattr = on_getattr,
        .readlink = on_readlink,
        .open = on_open,
        .release = on_release,
        .read = on_read,
        .readdir = on_readdir,
        .readdirplus = on_readdirplus,
        .statfs = on_statfs,
        .getxattr = on_getxattr,
        .listxattr = on_listxattr,
        .ioctl = on_ioctl,
        .retrieve_reply = on_retrieve_reply,
    };
    return &operations;
}
