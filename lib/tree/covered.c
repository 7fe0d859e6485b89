/* SPDX-License-Identifier: MIT */
#include "tree/covered.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MOST_LINKS 40U /* as many as the kernel follows */
/* Of the root of a FUSE mount, and what the tree numbers it by. */
#define ROOT_INODE 1U

void unshard_checkpoint_cover(struct unshard_checkpoint *checkpoint, dev_t device)
{
    checkpoint->cover = device;
}

/* Whether an open descriptor is of what covers the source, whose answer nobody waits for. */
static int is_cover(const struct unshard_checkpoint *checkpoint, int fd, bool *root)
{
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO,
              &status) != 0)
        return -errno;
    *root = status.stx_ino == ROOT_INODE;
    return makedev(status.stx_dev_major, status.stx_dev_minor) == checkpoint->cover;
}

int covered_replace(const struct unshard_checkpoint *checkpoint, int *fd)
{
    bool root = false;
    int found = checkpoint->cover != 0 ? is_cover(checkpoint, *fd, &root) : 0;
    if (found == 0)
        return 0;
    close(*fd);
    *fd = found < 0 || !root ? -1 : fcntl(checkpoint->source_fd, F_DUPFD_CLOEXEC, 0);
    if (*fd >= 0)
        return 0;
    return found < 0 ? found : root ? -errno : -EXDEV;
}

bool covered_is_there(const struct unshard_checkpoint *checkpoint)
{
    bool root = false;
    int fd = open(checkpoint->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool found = is_cover(checkpoint, fd, &root) > 0 && root;
    close(fd);
    return found;
}

/* ---- the way -----------------------------------------------------------------------------------
 */

struct way {
    const struct unshard_checkpoint *checkpoint;
    int at; /* O_PATH: how far it was gone */
    unsigned links;
    char rest[PATH_MAX]; /* what is left of the path */
};

/* Goes on to a name, which is no symlink that is followed. 0 or a negative errno. */
static int step(struct way *way, int directory, const char *name)
{
    int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = covered_replace(way->checkpoint, &fd);
    if (result != 0)
        return result;
    if (way->at >= 0)
        close(way->at);
    way->at = fd;
    return 0;
}

/* Puts what a symlink says, `target` of PATH_MAX bytes, before the rest. */
static int prepend(struct way *way, const char *target)
{
    char rest[PATH_MAX];
    int length = snprintf(rest, sizeof rest, "%s/%s", target, way->rest);
    if (length < 0 || (size_t)length >= sizeof rest)
        return -ENAMETOOLONG;
    memcpy(way->rest, rest, (size_t)length + 1);
    return 0;
}

/* Takes one name of the rest, and follows it when it is a symlink. */
static int take_name(struct way *way)
{
    char name[NAME_MAX + 1], target[PATH_MAX];
    char *start = way->rest + strspn(way->rest, "/");
    size_t length = strcspn(start, "/");
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, start, length);
    name[length] = '\0';
    memmove(way->rest, start + length, strlen(start + length) + 1);
    if (length == 0 || strcmp(name, ".") == 0)
        return 0;
    int before = fcntl(way->at, F_DUPFD_CLOEXEC, 0);
    int result = before < 0 ? -errno : step(way, way->at, name);
    ssize_t link = result == 0 ? readlinkat(way->at, "", target, sizeof target - 1) : -1;
    if (link >= 0) {
        target[link] = '\0';
        close(way->at);
        way->at = before;
        before = -1;
        result = ++way->links > MOST_LINKS ? -ELOOP : prepend(way, target);
        if (result == 0 && target[0] == '/')
            result = step(way, AT_FDCWD, "/");
    }
    if (before >= 0)
        close(before);
    return result;
}

int covered_open(const struct unshard_checkpoint *checkpoint, const char *path)
{
    struct way way = {.checkpoint = checkpoint, .at = -1};
    size_t length = strlen(path);
    if (length >= sizeof way.rest)
        return -ENAMETOOLONG;
    memcpy(way.rest, path, length + 1);
    int result = 0;
    if (path[0] == '/')
        result = step(&way, AT_FDCWD, "/");
    else if ((way.at = fcntl(checkpoint->source_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        result = -errno;
    while (result == 0 && way.rest[strspn(way.rest, "/")] != '\0')
        result = take_name(&way);
    if (result == 0)
        return way.at;
    if (way.at >= 0)
        close(way.at);
    return result;
}
