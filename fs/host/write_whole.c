/* SPDX-License-Identifier: MIT */
#include "fs/host/write_whole.h"

#include <errno.h>
#include <unistd.h>

int write_whole(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t count = write(fd, at, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? -errno : -EIO;
        at += count;
        length -= (size_t)count;
    }
    return 0;
}
