/* SPDX-License-Identifier: MIT */
#include "tree/path_policy.h"

#include "tree/covered.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How often, and how many times, to look whether descriptors are to be had: 10 s. */
#define SHORTAGE_NS 20000000
#define SHORTAGE_WAITS 500U

static bool starts_with(const char *text, size_t length, const char *prefix)
{
    size_t prefix_length = strlen(prefix);
    return length > prefix_length && memcmp(text, prefix, prefix_length) == 0;
}

bool path_policy_is_repository(const char *name, size_t length)
{
    return starts_with(name, length, "models--") || starts_with(name, length, "datasets--") ||
           starts_with(name, length, "spaces--");
}

static bool begins_with_name(const char *path, const char *name)
{
    size_t length = strlen(name);
    return strncmp(path, name, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* What follows the name of a repository in a path to it, or to something of it. */
static bool is_repository_part(const char *rest)
{
    return *rest == '\0' || begins_with_name(rest, "/snapshots") ||
           begins_with_name(rest, "/blobs");
}

int path_policy_find_hub(struct unshard_checkpoint *checkpoint)
{
    const char *source = checkpoint->source;
    checkpoint->repository = NULL;
    for (const char *slash = strchr(source, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        const char *name = slash + 1, *end = name + strcspn(name, "/");
        if (!path_policy_is_repository(name, (size_t)(end - name)) || !is_repository_part(end))
            continue;
        checkpoint->repository =
            arena_copy_string(&checkpoint->arena, source, (size_t)(end - source));
        return checkpoint->repository == NULL ? -ENOMEM : 0;
    }
    return 0;
}

bool path_policy_is_of_repository(const char *directory, const char *part)
{
    const char *slash = strrchr(directory, '/');
    if (slash == NULL || strcmp(slash + 1, part) != 0)
        return false;
    const char *name = memrchr(directory, '/', (size_t)(slash - directory));
    name = name == NULL ? directory : name + 1;
    return path_policy_is_repository(name, (size_t)(slash - name));
}

static bool lies_within(const char *path, const char *root)
{
    return root[1] == '\0' ||
           begins_with_name(path, root); /* of the root directory all is inside */
}

int path_policy_path_of(int fd, char out[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    out[length] = '\0';
    return out[0] == '/' ? 0 : -EXDEV;
}

static bool is_blob_of(const char *repository, const char *path)
{
    char blobs[PATH_MAX];
    return repository != NULL &&
           snprintf(blobs, sizeof blobs, "%s/blobs", repository) < (int)sizeof blobs &&
           lies_within(path, blobs);
}

/* Beside its repositories a cache keeps what several of them share: blobs/XX/HASH, where the hash
 * is not that of the content and begins with XX. */
static bool is_shared_blob(const char *repository, const char *path)
{
    static const char digits[] = "0123456789abcdef";
    if (repository == NULL)
        return false;
    size_t cache = (size_t)(strrchr(repository, '/') - repository);
    if (strncmp(path, repository, cache) != 0 || strncmp(path + cache, "/blobs/", 7) != 0)
        return false;
    const char *prefix = path + cache + 7, *hash = prefix + 3;
    return strspn(prefix, digits) == 2 && prefix[2] == '/' && strspn(hash, digits) == 64 &&
           hash[64] == '\0' && memcmp(prefix, hash, 2) == 0;
}

/* Where no symlink leaves the tree, the kernel alone can tell, without a detour through /proc. A
 * ".." may lead into what covers the source. */
static int open_beneath(const struct unshard_checkpoint *checkpoint, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    if (checkpoint->cover != 0)
        how.resolve |= RESOLVE_NO_XDEV;
    return (int)syscall(SYS_openat2, checkpoint->source_fd, path, &how, sizeof how);
}

/* A descriptor (O_PATH) of what a path leads to, of the source or an absolute one; or a negative
 * errno. */
static int open_path(const struct unshard_checkpoint *checkpoint, const char *path)
{
    if (checkpoint->cover != 0)
        return covered_open(checkpoint, path);
    int fd = openat(checkpoint->source_fd, path, O_PATH | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int stat_path(const struct unshard_checkpoint *checkpoint, const char *path,
                     struct stat *status)
{
    int fd = open_path(checkpoint, path);
    if (fd < 0)
        return fd;
    int result = fstat(fd, status) != 0 ? -errno : 0;
    close(fd);
    return result;
}

/* The path is that of a blob of the repository, or a symlink to one. */
static bool leads_to_blob(const struct unshard_checkpoint *checkpoint, const char *path,
                          const struct stat *status)
{
    struct stat blob;
    char whole[PATH_MAX], target[PATH_MAX];
    if (snprintf(whole, sizeof whole, "%s/%s", checkpoint->source, path) >= (int)sizeof whole)
        return false;
    if (is_blob_of(checkpoint->repository, whole))
        return true;
    ssize_t length = readlinkat(checkpoint->source_fd, path, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    const char *name = slash == NULL ? target : slash + 1;
    return snprintf(whole, sizeof whole, "%s/blobs/%s", checkpoint->repository, name) <
               (int)sizeof whole &&
           stat_path(checkpoint, whole, &blob) == 0 && blob.st_dev == status->st_dev &&
           blob.st_ino == status->st_ino;
}

static bool is_allowed(const struct unshard_checkpoint *checkpoint, const char *name, int fd,
                       const struct stat *status)
{
    char path[PATH_MAX];
    if (checkpoint->options.follow_symlinks)
        return true;
    if (path_policy_path_of(fd, path) != 0)
        return false;
    return lies_within(path, checkpoint->source) || is_blob_of(checkpoint->repository, path) ||
           (S_ISREG(status->st_mode) && is_shared_blob(checkpoint->repository, path) &&
            leads_to_blob(checkpoint, name, status));
}

static bool is_shortage(int negative_errno)
{
    return negative_errno == -EMFILE || negative_errno == -ENFILE;
}

/* Whether to try again: all descriptors were in use, and not for long yet. */
static bool wait_out_shortage(int result, unsigned *waits)
{
    static const struct timespec moment = {.tv_nsec = SHORTAGE_NS};
    if (!is_shortage(result) || *waits == SHORTAGE_WAITS)
        return false;
    ++*waits;
    nanosleep(&moment, NULL);
    return true;
}

/* A descriptor, or a negative errno: what path_policy_resolve is in one go. */
static int resolve(const struct unshard_checkpoint *checkpoint, const char *path,
                   struct stat *status)
{
    const char *name = path[0] == '\0' ? "." : path;
    int fd = open_beneath(checkpoint, name), result = 0;
    bool beneath = fd >= 0;
    if (!beneath)
        fd = open_path(checkpoint, name);
    if (fd < 0)
        return fd;
    if (fstat(fd, status) != 0)
        result = -errno;
    else if (!beneath && !is_allowed(checkpoint, path, fd, status))
        result = -EXDEV;
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

int path_policy_resolve(const struct unshard_checkpoint *checkpoint, const char *path,
                        struct stat *status)
{
    unsigned waits = 0;
    int fd;
    do
        fd = resolve(checkpoint, path, status);
    while (wait_out_shortage(fd, &waits));
    return fd;
}

static int reopen(int path_fd, int flags)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", path_fd);
    int fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
    return fd < 0 ? -errno : fd;
}

const char *path_policy_reason(int error)
{
    if (error == -EXDEV)
        return "a symlink leads outside the checkpoint; -o follow_symlinks follows it";
    const char *text = strerrordesc_np(-error);
    return text != NULL ? text : "unknown error";
}

int path_policy_reopen(int path_fd, int flags)
{
    unsigned waits = 0;
    int fd;
    do
        fd = reopen(path_fd, flags);
    while (wait_out_shortage(fd, &waits));
    return fd;
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
    bool private = false;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if ((length == 4 && memcmp(path, ".git", length) == 0) ||
            (length == 6 && memcmp(path, ".cache", length) == 0))
        private = true;
        else if (path_policy_is_repository(path, length)) private = false;
        path += length + (path[length] == '/');
    }
    return private;
}

int checkpoint_open_path_now(const struct unshard_checkpoint *checkpoint, const char *path,
                             int flags)
{
    struct stat status = {0};
    int path_fd = resolve(checkpoint, path, &status);
    if (path_fd < 0)
        return path_fd;
    int fd = S_ISREG(status.st_mode) ? reopen(path_fd, flags) : -EINVAL;
    close(path_fd);
    return fd;
}

int checkpoint_open_file(const struct unshard_checkpoint *checkpoint, uint32_t file, int flags)
{
    unsigned waits = 0;
    int fd;
    do /* all of it: a path that is held while waiting takes a descriptor from somebody */
        fd = checkpoint_open_path_now(checkpoint, checkpoint->files[file].path, flags);
    while (wait_out_shortage(fd, &waits));
    return fd;
}
