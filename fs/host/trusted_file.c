/* SPDX-License-Identifier: MIT
 *
 * The path is walked with a descriptor of each directory, so that what has been looked at is what
 * is used. */
#include "fs/host/trusted_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MOST_LINKS 40u
#define HOW (O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

struct walk {
    int directory;       /* O_PATH */
    char rest[PATH_MAX]; /* of the path, from there */
    char name[NAME_MAX + 1];
    unsigned links;
};

static bool is_ours(const struct stat *status)
{
    return status->st_uid == 0 || status->st_uid == geteuid();
}

static int enter(struct walk *walk, int fd)
{
    if (fd < 0)
        return -errno;
    if (walk->directory >= 0)
        close(walk->directory);
    walk->directory = fd;
    return 0;
}

static int enter_root(struct walk *walk)
{
    return enter(walk, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* Moves the next name of the path to walk->name. 1: it is the last one; 0: it is not. */
static int next_name(struct walk *walk)
{
    const char *start = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(start, "/");
    if (length == 0)
        return -EISDIR;
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(walk->name, start, length);
    walk->name[length] = '\0';
    bool last = start[length] == '\0';
    memmove(walk->rest, start + length, strlen(start + length) + 1);
    return last;
}

/* What /proc/self/fd has is links that say nothing that could be walked. */
static bool is_proc(const struct walk *walk)
{
    struct statfs status;
    return fstatfs(walk->directory, &status) == 0 && status.f_type == PROC_SUPER_MAGIC;
}

/* walk->name is a link: what it says comes before the rest of the path. */
static int follow(struct walk *walk)
{
    struct stat status;
    char target[PATH_MAX], path[PATH_MAX];
    if (fstatat(walk->directory, walk->name, &status, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (!is_ours(&status) || ++walk->links > MOST_LINKS)
        return -ELOOP;
    ssize_t length = readlinkat(walk->directory, walk->name, target, sizeof target);
    if (length < 0)
        return -errno;
    if (snprintf(path, sizeof path, "%.*s%s", (int)length, target, walk->rest) >= (int)sizeof path)
        return -ENAMETOOLONG;
    memcpy(walk->rest, path, sizeof path);
    return path[0] == '/' ? enter_root(walk) : 0;
}

static int check_file(const struct walk *walk, int fd)
{
    struct stat file, directory;
    if (fstat(fd, &file) || fstat(walk->directory, &directory))
        return -errno;
    if (S_ISCHR(file.st_mode))
        return 0;
    if (!S_ISREG(file.st_mode) && !S_ISFIFO(file.st_mode))
        return -EINVAL;
    bool trusted = is_ours(&directory) && !(directory.st_mode & S_IWOTH);
    return trusted || (is_ours(&file) && file.st_nlink == 1) ? 0 : -EPERM;
}

/* A link was not opened: -ELOOP, or -EACCES with fs.protected_symlinks. */
static bool is_link(const struct walk *walk, struct stat *status)
{
    return (errno == ELOOP || errno == EACCES) &&
           fstatat(walk->directory, walk->name, status, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISLNK(status->st_mode);
}

static int open_name(struct walk *walk)
{
    struct stat link;
    int fd = openat(walk->directory, walk->name, HOW | O_WRONLY | O_CREAT | O_NOFOLLOW, 0640);
    if (fd < 0 && is_link(walk, &link)) {
        if (!is_proc(walk) || !is_ours(&link))
            return -ELOOP;
        fd = openat(walk->directory, walk->name, HOW | O_WRONLY);
        return fd < 0 ? -errno : fd;
    }
    if (fd < 0 && errno == ENXIO) /* a FIFO that nobody reads: with two ends of ours it opens */
        fd = openat(walk->directory, walk->name, HOW | O_RDWR | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int result = check_file(walk, fd);
    if (result) {
        close(fd);
        return result;
    }
    return fd;
}

static int enter_name(struct walk *walk)
{
    struct stat status;
    int fd = openat(walk->directory, walk->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fstat(fd, &status) ? -errno : 0;
    if (!result && S_ISDIR(status.st_mode))
        return enter(walk, fd);
    close(fd);
    return result ? result : S_ISLNK(status.st_mode) ? follow(walk) : -ENOTDIR;
}

int trusted_file_append(const char *path)
{
    struct walk walk = {.directory = -1};
    if (strlen(path) >= sizeof walk.rest)
        return -ENAMETOOLONG;
    memcpy(walk.rest, path, strlen(path) + 1);
    int result = enter_root(&walk);
    while (!result) {
        int last = next_name(&walk);
        if (last < 0) {
            result = last;
        } else if (!last) {
            result = enter_name(&walk);
        } else {
            result = open_name(&walk);
            if (result >= 0)
                break;
            if (result == -ELOOP && !is_proc(&walk))
                result = follow(&walk);
        }
    }
    if (walk.directory >= 0)
        close(walk.directory);
    return result;
}
