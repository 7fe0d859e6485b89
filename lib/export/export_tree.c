/* SPDX-License-Identifier: MIT */
#include "export/export_tree.h"
#include "base/error.h"
#include "checkpoint/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

static int check_empty(int fd, const char *target, struct unshard_error *error)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory) {
        int number = errno;
        if (copy >= 0)
            close(copy);
        return error_set(error, "target", number, "%s: %s", target, strerror(number));
    }
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = error_set(error, "target-not-empty", ENOTEMPTY,
                               "%s: the target directory is not empty", target);
    }
    closedir(directory);
    return result;
}

int export_tree_open(const char *target, struct unshard_error *error)
{
    if (mkdir(target, 0777) < 0 && errno != EEXIST)
        return error_set(error, "target", errno, "%s: cannot create the directory: %s", target,
                         strerror(errno));
    int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, "target", errno, "%s: %s", target, strerror(errno));
    int result = check_empty(fd, target, error);
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}

int export_tree_make(const struct unshard_checkpoint *checkpoint, int target_fd,
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
        if (result < 0)
            return error_set(error, "write-error", errno, "%s: %s", path, strerror(errno));
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

static int seal_file(int fd, const struct unshard_node *node)
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

int export_tree_finish(int target_fd, const char *path, int fd, const struct unshard_node *node,
                       struct unshard_error *error)
{
    char temporary[PATH_MAX];
    int result = temporary_path(path, temporary);
    if (result == 0)
        result = seal_file(fd, node);
    if (result == 0 && renameat(target_fd, temporary, target_fd, path) < 0)
        result = -errno;
    if (result < 0)
        return error_set(error, "write-error", -result, "%s: %s", path, strerror(-result));
    return 0;
}

void export_tree_discard(int target_fd, const char *path)
{
    char temporary[PATH_MAX];
    if (temporary_path(path, temporary) == 0)
        unlinkat(target_fd, temporary, 0);
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
