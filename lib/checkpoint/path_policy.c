/* SPDX-License-Identifier: MIT */
#include "checkpoint/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool starts_with(const char *text, size_t length, const char *prefix)
{
    size_t prefix_length = strlen(prefix);
    return length > prefix_length && memcmp(text, prefix, prefix_length) == 0;
}

static bool is_repository_name(const char *name, size_t length)
{
    return starts_with(name, length, "models--") || starts_with(name, length, "datasets--") ||
           starts_with(name, length, "spaces--");
}

int path_policy_blob_root(const char *source, struct arena *arena, const char **out)
{
    static const char snapshots[] = "/snapshots/";
    *out = NULL;
    for (const char *found = source; (found = strstr(found, snapshots)) != NULL; found++) {
        const char *slash = memrchr(source, '/', (size_t)(found - source));
        const char *revision = found + sizeof snapshots - 1;
        if (slash == NULL || *revision == '\0' || *revision == '/')
            continue;
        if (!is_repository_name(slash + 1, (size_t)(found - slash - 1)))
            continue;
        *out = arena_copy_string(arena, source, (size_t)(found - source));
        return *out == NULL ? -ENOMEM : 0;
    }
    return 0;
}

static bool lies_within(const char *path, const char *root)
{
    size_t length = strlen(root);
    if (length == 1) /* the root directory */
        return true;
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* Where an open descriptor is, as the kernel says it. */
static int path_of(int fd, char out[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    out[length] = '\0';
    return out[0] == '/' ? 0 : -EXDEV;
}

static bool is_allowed(const struct unshard_checkpoint *checkpoint, int fd)
{
    char path[PATH_MAX];
    if (checkpoint->options.follow_symlinks)
        return true;
    if (path_of(fd, path) != 0)
        return false;
    return lies_within(path, checkpoint->source) ||
           (checkpoint->blob_root != NULL && lies_within(path, checkpoint->blob_root));
}

/* Where no symlink leaves the tree, the kernel alone can tell, without a detour through /proc. */
static int open_beneath(int source_fd, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, source_fd, path, &how, sizeof how);
}

int path_policy_resolve(const struct unshard_checkpoint *checkpoint, const char *path,
                        struct stat *status)
{
    const char *name = path[0] == '\0' ? "." : path;
    int fd = open_beneath(checkpoint->source_fd, name);
    if (fd < 0) {
        fd = openat(checkpoint->source_fd, name, O_PATH | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (!is_allowed(checkpoint, fd)) {
            close(fd);
            return -EXDEV;
        }
    }
    if (fstat(fd, status) != 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

int path_policy_reopen(int path_fd, int flags)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", path_fd);
    int fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
    return fd < 0 ? -errno : fd;
}

bool path_policy_target_is_inside(const char *target, unsigned depth)
{
    if (target[0] == '/' || target[0] == '\0')
        return false;
    for (const char *part = target; *part != '\0';) {
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.') {
            if (depth == 0)
                return false;
            depth--;
        } else if (length > 0 && !(length == 1 && part[0] == '.')) {
            depth++;
        }
        part += length;
        part += strspn(part, "/");
    }
    return true;
}

bool path_policy_is_private(const char *path)
{
    size_t length = strcspn(path, "/");
    return (length == 4 && memcmp(path, ".git", length) == 0) ||
           (length == 6 && memcmp(path, ".cache", length) == 0);
}

int checkpoint_open_file(const struct unshard_checkpoint *checkpoint, uint32_t file, int flags)
{
    struct stat status = {0};
    int path_fd = path_policy_resolve(checkpoint, checkpoint->files[file].path, &status);
    if (path_fd < 0)
        return path_fd;
    int fd = S_ISREG(status.st_mode) ? path_policy_reopen(path_fd, flags) : -EINVAL;
    close(path_fd);
    return fd;
}
