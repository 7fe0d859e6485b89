/* SPDX-License-Identifier: MIT */
#include "fs/host/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "fs/host/mount_table.h"
#include "fs/host/mountpoint.h"

static bool is_unshard_mount(const char *path)
{
    struct mount_entry entry;
    return mountpoint_find(path, &entry) == 0 && mount_table_is_unshard(entry.type);
}

/* A descriptor of what lies at `path`, on which no unshard mount lies even if one comes there now,
 * opened without waiting for one. */
static int open_directory(const char *path)
{
    char link[32];
    int place = mountpoint_open(path);
    if (place < 0)
        return place;
    snprintf(link, sizeof link, "/proc/self/fd/%d", place);
    int fd = is_unshard_mount(path) ? -EBUSY : open(link, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd == -1)
        fd = -errno;
    close(place);
    return fd;
}

int claim_take(const char *path, int *out, struct unshard_error *error)
{
    char quoted[256];
    unshard_quote(quoted, sizeof quoted, path, strlen(path));
    *out = -1;
    int fd = open_directory(path);
    if (fd == -EBUSY)
        return unshard_error_set(error, "mountpoint", EBUSY, "%s: already mounted by unshard",
                                 quoted);
    if (fd < 0)
        return 0;
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        int saved = errno;
        close(fd);
        return saved == EWOULDBLOCK
                   ? unshard_error_set(error, "mountpoint", EBUSY,
                                       "%s: another 'unshard mount' of it is under way", quoted)
                   : 0;
    }
    if (is_unshard_mount(path)) { /* while we waited for the lock */
        claim_release(fd);
        return unshard_error_set(error, "mountpoint", EBUSY, "%s: already mounted by unshard",
                                 quoted);
    }
    *out = fd;
    return 0;
}

void claim_release(int fd)
{
    if (fd < 0)
        return;
    flock(fd, LOCK_UN); /* for a child that has not closed it yet, too */
    close(fd);
}
