/* SPDX-License-Identifier: MIT */
#include "fs/host/mounted_fd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Of /dev/fuse: see Documentation/admin-guide/devices.txt of the kernel. */
#define FUSE_MAJOR 10
#define FUSE_MINOR 229

int mounted_fd_parse(const char *path)
{
    static const char prefix[] = "/dev/fd/";
    if (strncmp(path, prefix, sizeof prefix - 1) != 0)
        return -1;
    const char *digits = path + sizeof prefix - 1;
    char *end;
    long fd = strtol(digits, &end, 10);
    return *digits >= '0' && *digits <= '9' && !*end && fd <= 1 << 20 ? (int)fd : -1;
}

unsigned mounted_fd_connection(const char *path)
{
    static const char key[] = "fuse_connection:";
    char line[128];
    unsigned number = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (!number && fgets(line, sizeof line, file))
        if (!strncmp(line, key, sizeof key - 1))
            number = (unsigned)strtoul(line + sizeof key - 1, NULL, 10);
    fclose(file);
    return number;
}

int mounted_fd_find(int fd, struct mount_entry *out, struct unshard_error *error)
{
    struct stat attributes;
    *out = (struct mount_entry){0};
    if (fstat(fd, &attributes))
        return unshard_error_set(error, "mountpoint", errno, "/dev/fd/%d: %s", fd, strerror(errno));
    if (!S_ISCHR(attributes.st_mode) || attributes.st_rdev != makedev(FUSE_MAJOR, FUSE_MINOR))
        return unshard_error_set(error, "mountpoint", EINVAL,
                                 "/dev/fd/%d: not a descriptor of /dev/fuse that was mounted", fd);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    unsigned connection = mounted_fd_connection(path);
    if (connection && mountpoint_find_connection(connection, out)) {
        *out = (struct mount_entry){0};
        out->minor_number = connection;
    }
    return 0;
}
