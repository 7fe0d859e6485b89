/* SPDX-License-Identifier: MIT */
#include "export/export_tree.h"
#include "base/error.h"
#include "tree/model.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- paths -------------------------------------------------------------------------------------
 */

/* Names come from directories and index files: none may lead out of the target. */
static bool name_is_safe(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

/* The path of a node below the root, written from its end. NULL when it is too long or unsafe. */
static const char *node_path(const struct unshard_checkpoint *checkpoint, uint32_t number,
                             char buffer[PATH_MAX])
{
    size_t start = PATH_MAX - 1;
    buffer[start] = '\0';
    while (number != 0) {
        const struct unshard_node *node = &checkpoint->nodes[number];
        size_t length = strlen(node->name);
        if (!name_is_safe(node->name) || length + 1 > start)
            return NULL;
        if (buffer[start] != '\0')
            buffer[--start] = '/';
        start -= length;
        memcpy(buffer + start, node->name, length);
        number = node->parent;
    }
    return buffer + start;
}

/* "dir/.NAME.unshard-tmp". A name near NAME_MAX leaves no room for the rest, and then loses its
 * end; the number of the process keeps what is left from meeting another name. */
static int temporary_path(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    int length = snprintf(out, PATH_MAX, "%.*s.%.230s.unshard-tmp", (int)(name - path), path, name);
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* ---- the target --------------------------------------------------------------------------------
 */

int export_tree_open(const char *target, struct unshard_error *error)
{
    if (mkdir(target, 0777) < 0 && errno != EEXIST)
        return error_set(error, "target", errno, "%s: cannot create the directory: %s", target,
                         strerror(errno));
    int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, "target", errno, "%s: %s", target, strerror(errno));
    return fd;
}

/* Whoever has the target may have put anything there since the last export. */
static int open_parent(int target_fd, const char *path, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    *name = slash ? slash + 1 : path;
    if (snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1,
                 slash ? path : ".") >= (int)sizeof parent)
        return -ENAMETOOLONG;
    int fd = (int)syscall(SYS_openat2, target_fd, parent, &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

int export_tree_stat(int target_fd, const char *path, struct stat *out)
{
    const char *name;
    int fd = open_parent(target_fd, path, &name);
    if (fd < 0)
        return fd;
    int result = fstatat(fd, name, out, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
    close(fd);
    return result;
}

void export_tree_remove(int target_fd, const char *path)
{
    const char *name;
    int fd = open_parent(target_fd, path, &name);
    if (fd < 0)
        return;
    unlinkat(fd, name, 0);
    close(fd);
}

/* The directory, or the symlink that says the same, is there. */
static bool is_there(const struct unshard_node *node, int target_fd, const char *path)
{
    char target[PATH_MAX];
    struct stat status;
    if (export_tree_stat(target_fd, path, &status) < 0)
        return false;
    if (node->kind == UNSHARD_NODE_DIRECTORY)
        return S_ISDIR(status.st_mode);
    ssize_t length = readlinkat(target_fd, path, target, sizeof target);
    return length >= 0 && (size_t)length == strlen(node->target) &&
           memcmp(target, node->target, (size_t)length) == 0;
}

int export_tree_make(const struct unshard_checkpoint *checkpoint, int target_fd, bool resumed,
                     struct unshard_error *error)
{
    char buffer[PATH_MAX];
    for (uint32_t i = 1; i < checkpoint->node_count; i++) {
        const struct unshard_node *node = &checkpoint->nodes[i];
        const char *path = node_path(checkpoint, i, buffer);
        if (!path)
            return error_set(error, "unsafe-name", EINVAL,
                             "node %u: its name or path cannot be used", i);
        int result = 0;
        if (node->kind == UNSHARD_NODE_DIRECTORY)
            result = mkdirat(target_fd, path, 0700);
        else if (node->kind == UNSHARD_NODE_SYMLINK)
            result = symlinkat(node->target, target_fd, path);
        int number = errno;
        if (result < 0 && !(number == EEXIST && resumed && is_there(node, target_fd, path)))
            return error_set(error, "write-error", number, "%s: %s", path, strerror(number));
    }
    return 0;
}

/* ---- files -------------------------------------------------------------------------------------
 */

int export_tree_create(int target_fd, const char *path, struct unshard_error *error)
{
    char temporary[PATH_MAX];
    int fd = temporary_path(path, temporary);
    if (fd == 0) {
        fd = openat(target_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                    0600);
        fd = fd < 0 ? -errno : fd;
    }
    if (fd < 0)
        return error_set(error, "write-error", -fd, "%s: cannot create: %s", path, strerror(-fd));
    return fd;
}

int export_tree_seal(int fd, const struct unshard_node *node)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
    times[1].tv_sec = (time_t)(node->mtime_ns / 1000000000);
    times[1].tv_nsec = (long)(node->mtime_ns % 1000000000);
    if (times[1].tv_nsec < 0) {
        times[1].tv_sec--;
        times[1].tv_nsec += 1000000000;
    }
    if (fchmod(fd, (node->mode & 0777) | S_IWUSR) < 0)
        return -errno;
    /* Some file systems keep no times of others' choosing; the bytes matter more. */
    (void)!futimens(fd, times);
    return fsync(fd) < 0 ? -errno : 0;
}

int export_tree_name(int target_fd, const char *path)
{
    char temporary[PATH_MAX];
    int result = temporary_path(path, temporary);
    return result == 0 && renameat(target_fd, temporary, target_fd, path) < 0 ? -errno : result;
}

void export_tree_discard(int target_fd, const char *path)
{
    char temporary[PATH_MAX];
    if (temporary_path(path, temporary) == 0)
        export_tree_remove(target_fd, temporary);
}

static int sync_directory(int target_fd, const char *path, mode_t mode)
{
    int fd = openat(target_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int result = fchmod(fd, (mode & 0777) | S_IRWXU) < 0 ? -errno : 0;
    /* EINVAL: the file system cannot flush directories, and none of its programs expects it. */
    if (result == 0 && fsync(fd) < 0 && errno != EINVAL)
        result = -errno;
    close(fd);
    return result;
}

int export_tree_sync(const struct unshard_checkpoint *checkpoint, int target_fd,
                     struct unshard_error *error)
{
    char buffer[PATH_MAX];
    for (uint32_t i = checkpoint->node_count; i-- > 1;) {
        const struct unshard_node *node = &checkpoint->nodes[i];
        if (node->kind != UNSHARD_NODE_DIRECTORY)
            continue;
        const char *path = node_path(checkpoint, i, buffer);
        int result = path ? sync_directory(target_fd, path, node->mode) : -EINVAL;
        if (result < 0)
            return error_set(error, "write-error", -result, "%s: %s", path ? path : "?",
                             strerror(-result));
    }
    if (fsync(target_fd) < 0 && errno != EINVAL)
        return error_set(error, "write-error", errno, "target directory: %s", strerror(errno));
    return 0;
}
