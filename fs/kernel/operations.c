/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/kernel/control.h"
#include "fs/kernel/directories.h"
#include "fs/kernel/features.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/lookups.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/opening.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/status_files.h"
#include "fs/kernel/status_snapshots.h"

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
    lookups_find(filesystem_of(request), request, parent, name);
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
    lookups_attributes(filesystem_of(request), request, ino);
}

static void on_readlink(fuse_req_t request, fuse_ino_t ino)
{
    lookups_link(filesystem_of(request), request, ino);
}

static void open_status(fuse_req_t request, int file, struct fuse_file_info *info)
{
    uint64_t snapshot = 0;
    struct status_reader reader;
    if (status_reader_find(request, &reader) == 0)
        snapshot = status_snapshot_take((unsigned)file, filesystem_of(request), &reader);
    if (!snapshot) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    info->fh = snapshot;
    info->direct_io = 1;
    info->noflush = 1;
    if (fuse_reply_open(request, info))
        status_snapshot_release(snapshot);
}

static void on_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    int file = nodes_status_file(ino);
    if ((info->flags & O_ACCMODE) != O_RDONLY)
        fuse_reply_err(request, EROFS);
    else if (file >= 0)
        open_status(request, file, info);
    else
        opening_open(filesystem_of(request), request, ino, info);
}

static void on_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    if (nodes_status_file(ino) < 0) {
        opening_release(filesystem_of(request), request, ino, info);
        return;
    }
    status_snapshot_release(info->fh);
    fuse_reply_err(request, 0);
}

/* Once it is answered the file may be closed and released before we get on: hence the reference. */
static void read_status(fuse_req_t request, uint64_t snapshot, uint64_t offset, size_t size)
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

static void on_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    if (offset < 0)
        fuse_reply_err(request, EINVAL);
    else if (nodes_status_file(ino) >= 0)
        read_status(request, info->fh, (uint64_t)offset, size);
    else
        opening_read(filesystem_of(request), request, ino, (uint64_t)offset, size, info);
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
    struct control_message message = {0};
    if ((flags & FUSE_IOCTL_DIR) || nodes_status_file(ino) < 0 || input_size > sizeof message ||
        output_size != sizeof message) {
        fuse_reply_err(request, ENOTTY);
        return;
    }
    if (!may_control(request)) {
        fuse_reply_err(request, EPERM);
        return;
    }
    if (input_size > 0)
        memcpy(&message, input, input_size);
    control_request(filesystem_of(request), request, command, &message);
}

/* What is known at the moment: nobody counts what nobody has looked at. */
static void on_statfs(fuse_req_t request, fuse_ino_t ino)
{
    (void)ino;
    uint64_t nodes, bytes;
    inode_table_count(filesystem_of(request)->inodes, &nodes, &bytes);
    struct statvfs totals = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = bytes / 4096 + 1,
        .f_files = nodes,
        .f_namemax = 255,
        .f_flag = ST_RDONLY,
    };
    fuse_reply_statfs(request, &totals);
}

static void on_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t size)
{
    opening_get_attribute(filesystem_of(request), request, ino, name, size);
}

static void on_listxattr(fuse_req_t request, fuse_ino_t ino, size_t size)
{
    opening_list_attributes(filesystem_of(request), request, ino, size);
}

static void on_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    directories_open(filesystem_of(request), request, ino, info);
}

static void on_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)ino;
    directories_release(request, info);
}

static void on_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *info)
{
    directories_read(filesystem_of(request), request, ino, info, size, offset, false);
}

static void on_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *info)
{
    directories_read(filesystem_of(request), request, ino, info, size, offset, true);
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
        .opendir = on_opendir,
        .releasedir = on_releasedir,
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
