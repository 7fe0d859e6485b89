/* SPDX-License-Identifier: MIT */
#include "base/read_fully.h"

#include <errno.h>
#include <unistd.h>

ssize_t read_fully(int fd, uint64_t offset, void *buffer, size_t length)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, (char *)buffer + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}
