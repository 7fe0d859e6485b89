/* SPDX-License-Identifier: MIT */
#include "fs/mount/mount_place.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/host/claim.h"
#include "fs/host/mounted_fd.h"
#include "fs/host/mountpoint.h"
#include "fs/kernel/session.h"

/* Mounted already. */
static int take_given_mount(struct mount_run *run, int fd)
{
    struct mount_entry entry;
    int result = mounted_fd_find(fd, &entry, &run->error);
    if (result)
        return result;
    run->given = true;
    snprintf(run->given_path, sizeof run->given_path, "/dev/fd/%d", fd);
    run->visible = entry.path[0] != '\0';
    run->connection = entry.minor_number;
    run->mountpoint = strdup(run->visible ? entry.path : run->options.mountpoint);
    if (!run->mountpoint)
        return unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    if (run->visible)
        return 0;
    run->filesystem.initialised_fd = eventfd(0, EFD_CLOEXEC);
    return run->filesystem.initialised_fd < 0
               ? unshard_error_set(&run->error, "mount", errno, "eventfd: %s", strerror(errno))
               : 0;
}

/* Mounted by the command that wants it, where we cannot see it. */
static int take_private_mount(struct mount_run *run)
{
    run->mountpoint = strdup(run->given_path);
    return run->mountpoint ? 0
                           : unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
}

/* What is mounted already covers the source, and nobody answers it yet. */
static int refuse_over(struct mount_run *run)
{
    return unshard_error_set(&run->error, "mountpoint", EINVAL,
                             "over needs a daemon that mounts by itself: neither --prepare nor "
                             "/dev/fd/N can be used with it");
}

static int prepare_mountpoint(struct mount_run *run)
{
    if (run->private)
        return take_private_mount(run);
    int fd = mounted_fd_parse(run->options.mountpoint);
    if (fd < 0)
        fd = run->prepared;
    if (run->options.over && (fd >= 0 || run->options.prepare))
        return refuse_over(run);
    if (fd >= 0)
        return take_given_mount(run, fd);
    run->visible = true;
    int result = mountpoint_resolve(run->options.mountpoint, &run->mountpoint, &run->error);
    if (result)
        return result;
    run->waits = run->options.prepare &&
                 mountpoint_waits(run->mountpoint, mount_run_session_options(run).fsname);
    return run->waits ? 0
                      : mountpoint_prepare(run->mountpoint, run->source, run->options.over,
                                           &run->claim, &run->error);
}

int mount_place_resolve(struct mount_run *run)
{
    int result = mountpoint_resolve(run->options.source, &run->source, &run->error);
    return result ? result : prepare_mountpoint(run);
}

/* What lies on top is ours, since the place is claimed. */
static int connection_on_top(const char *path, unsigned *connection)
{
    int fd = mountpoint_open(path);
    int result = fd < 0 ? fd : mountpoint_connection(fd, connection);
    if (fd >= 0)
        close(fd);
    return result;
}

void mount_place_set(struct mount_run *run)
{
    run->filesystem.connection = run->connection;
    run->filesystem.mountpoint = run->private   ? run->view.path
                                 : run->visible ? run->mountpoint
                                                : NULL;
}

int mount_place_find(struct mount_run *run)
{
    int result = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", session_descriptor(&run->filesystem));
    if (!run->given)
        run->connection = mounted_fd_connection(path);
    if (!run->given && !run->connection)
        result = connection_on_top(run->mountpoint, &run->connection);
    if (result)
        return unshard_error_set(&run->error, "mount", -result, "%s: cannot find the new mount: %s",
                                 run->mountpoint, strerror(-result));
    mount_place_set(run);
    if (run->visible && run->connection)
        result = mountpoint_check_alone(run->mountpoint, run->source, run->connection, &run->error);
    if (run->options.over)
        unshard_tree_cover(run->filesystem.tree, makedev(0, run->connection));
    claim_release(run->claim);
    run->claim = -1;
    return result;
}

/* What we hold of a command's mount keeps that from ending with the command. */
void mount_place_let_go(struct mount_run *run)
{
    if (run->root >= 0)
        close(run->root);
    if (run->user_namespace >= 0)
        close(run->user_namespace);
    run->root = run->user_namespace = -1;
}

/* Where it is mounted, for a person. */
const char *mount_place_shown(const struct mount_run *run)
{
    return run->private ? run->view.path : run->mountpoint;
}
