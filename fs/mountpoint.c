/* SPDX-License-Identifier: MIT */
#include "fs/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "fs/mount_table.h"

/* What is searched for: a path, or when that is NULL a FUSE connection. */
struct search {
    const char *path;
    unsigned connection;
    struct mount_entry *found;
    int result;
};

static int compare(void *context, const struct mounted *mounted)
{
    struct search *search = context;
    bool matches = search->path ? !strcmp(mounted->mountpoint, search->path)
                                : mounted->major_number == 0 &&
                                      mounted->minor_number == search->connection &&
                                      !strncmp(mounted->type, "fuse", 4);
    struct mount_entry *found = search->found;
    if (!matches || strlen(mounted->mountpoint) >= sizeof found->path ||
        strlen(mounted->type) >= sizeof found->type)
        return 0;
    found->major_number = mounted->major_number;
    found->minor_number = mounted->minor_number;
    snprintf(found->path, sizeof found->path, "%s", mounted->mountpoint);
    snprintf(found->type, sizeof found->type, "%s", mounted->type);
    search->result = 0;
    return 0; /* a later one lies on top */
}

static int find_entry(const char *path, unsigned connection, struct mount_entry *out)
{
    struct search search = {path, connection, out, -ENOENT};
    int result = mount_table_each(compare, &search);
    return result ? result : search.result;
}

int mountpoint_find(const char *path, struct mount_entry *out)
{
    return find_entry(path, 0, out);
}

int mountpoint_find_connection(unsigned connection, struct mount_entry *out)
{
    return find_entry(NULL, connection, out);
}

int mountpoint_resolve(const char *path, char **out, struct unshard_error *error)
{
    char quoted[256];
    *out = realpath(path, NULL);
    if (*out)
        return 0;
    int saved = errno;
    error_quote(quoted, sizeof quoted, path, strlen(path));
    return error_set(error, "path", saved, "%s: %s", quoted, strerror(saved));
}

/* Whether `inner` is `outer` or below it. */
static bool contains(const char *outer, const char *inner)
{
    size_t length = strlen(outer);
    if (!strcmp(outer, "/"))
        return true;
    return !strncmp(outer, inner, length) && (inner[length] == '/' || inner[length] == '\0');
}

static int check_apart(const char *path, const char *source, struct unshard_error *error)
{
    char quoted[2][256];
    error_quote(quoted[0], sizeof quoted[0], path, strlen(path));
    error_quote(quoted[1], sizeof quoted[1], source, strlen(source));
    if (!strcmp(path, source))
        return error_set(error, "mountpoint", EINVAL,
                         "%s: mount point and source are the same directory", quoted[0]);
    if (contains(source, path))
        return error_set(error, "mountpoint", EINVAL, "%s: mount point lies inside the source %s",
                         quoted[0], quoted[1]);
    if (contains(path, source))
        return error_set(error, "mountpoint", EINVAL, "%s: mounting here would cover the source %s",
                         quoted[0], quoted[1]);
    return 0;
}

int mountpoint_outside_file(char **path, const char *mountpoint, const char *source,
                            struct unshard_error *error)
{
    char quoted[256], *absolute = NULL;
    if (!*path)
        return 0;
    error_quote(quoted, sizeof quoted, *path, strlen(*path));
    const char *slash = strrchr(*path, '/'), *name = slash ? slash + 1 : *path;
    /* With a "." behind it only a directory is found. */
    char *directory = NULL, *resolved = NULL;
    int length = slash ? (int)(slash - *path) + 1 : 0;
    if (asprintf(&directory, "%.*s.", length, *path) >= 0)
        resolved = realpath(directory, NULL);
    else
        directory = NULL;
    int saved = errno;
    free(directory);
    if (!resolved)
        return error_set(error, "path", saved, "%s: the directory to write it in: %s", quoted,
                         strerror(saved));
    int result = 0;
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        result = error_set(error, "path", EISDIR, "%s: this is no name for a file", quoted);
    else if (contains(source, resolved) || contains(mountpoint, resolved))
        result = error_set(error, "path", EINVAL,
                           "%s: a file in the source or the mount cannot be written", quoted);
    else if (asprintf(&absolute, "%s/%s", resolved[1] ? resolved : "", name) < 0)
        result = error_no_memory(error);
    free(resolved);
    if (result)
        return result;
    free(*path);
    *path = absolute;
    return 0;
}

/* Whether the server of a mount is gone. Asks for what the kernel does not answer from its cache.
 */
static bool is_dead(const char *path)
{
    struct statfs totals;
    return statfs(path, &totals) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

#define MOST_STALE_MOUNTS 16

/* Takes dead unshard mounts away from the top of `path`. */
static int clear_stale(const char *path, const char *quoted, struct unshard_error *error)
{
    struct mount_entry entry;
    for (int round = 0; round < MOST_STALE_MOUNTS; round++) {
        if (mountpoint_find(path, &entry) || !mount_table_is_unshard(entry.type))
            return 0;
        if (!is_dead(path))
            return error_set(error, "mountpoint", EBUSY, "%s: already mounted by unshard", quoted);
        int result = mountpoint_detach(path);
        if (result)
            return error_set(error, "mountpoint", -result,
                             "%s: cannot take away the dead unshard mount: %s", quoted,
                             strerror(-result));
    }
    return error_set(error, "mountpoint", ENOTCONN, "%s: too many dead mounts", quoted);
}

int mountpoint_prepare(const char *path, const char *source, struct unshard_error *error)
{
    char quoted[256];
    struct stat attributes;
    error_quote(quoted, sizeof quoted, path, strlen(path));
    int result = clear_stale(path, quoted, error);
    if (result)
        return result;
    if (stat(path, &attributes)) {
        int saved = errno;
        return error_set(error, "mountpoint", saved, "%s: %s", quoted, strerror(saved));
    }
    if (!S_ISDIR(attributes.st_mode))
        return error_set(error, "mountpoint", ENOTDIR, "%s: mount point is not a directory",
                         quoted);
    return check_apart(path, source, error);
}

static int run_fusermount(const char *path)
{
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", path, (char *)NULL);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int mountpoint_detach(const char *path)
{
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    return errno == EPERM ? run_fusermount(path) : -errno;
}

int mountpoint_abort(const char *path, int abort_fd)
{
    if (abort_fd >= 0 && write(abort_fd, "1", 1) == 1)
        return 0;
    /* Aborts first of all; that the mount is then found busy does not matter. */
    if (umount2(path, MNT_FORCE | UMOUNT_NOFOLLOW) == 0 || errno == EBUSY)
        return 0;
    return -errno;
}

int mountpoint_open_abort(unsigned connection)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", connection);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
