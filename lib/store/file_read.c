/* SPDX-License-Identifier: MIT
 *
 * Whether pages are there is asked with mincore(2) of a mapping that nothing ever touches.
 * preadv2(2) with RWF_NOWAIT alone would not do: of what is missing it starts the read-ahead, so
 * that the storage reads everything twice and the pages take the memory that views need.
 */
#include "store/file_read.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_BYTES 4096U
#define PAGES_AT_ONCE 512U
#define BEHIND_ANY_END (UINT64_C(1) << 62)
/* Direct reads in a row that bring less than a block, before another way is tried. */
#define MAX_FUTILE_READS 3

/* Of the pages from the start of the mapping; true as well when the kernel does not tell. */
static bool all_present(char *mapping, size_t pages)
{
    unsigned char present[PAGES_AT_ONCE];
    for (size_t first = 0; first < pages; first += PAGES_AT_ONCE) {
        size_t count = pages - first < PAGES_AT_ONCE ? pages - first : PAGES_AT_ONCE;
        if (mincore(mapping + first * PAGE_BYTES, count * PAGE_BYTES, present) != 0)
            return true;
        for (size_t i = 0; i < count; i++)
            if ((present[i] & 1) == 0)
                return false;
    }
    return true;
}

/* The kernel tells the owner of a file and who may write it; for others all pages look present. */
static bool may_be_present(int fd, uint64_t offset, size_t length)
{
    char *mapping = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    if (mapping == MAP_FAILED)
        return true;
    bool present = all_present(mapping, (length + PAGE_BYTES - 1) / PAGE_BYTES);
    munmap(mapping, length);
    return present;
}

/* Whether all of the range came, or -EOPNOTSUPP. */
static int read_nowait(int fd, uint64_t offset, void *buffer, size_t length)
{
    struct iovec part = {buffer, length};
    ssize_t got = preadv2(fd, &part, 1, (off_t)offset, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP)
        return -EOPNOTSUPP;
    return got == (ssize_t)length;
}

int file_read_if_cached(int fd, uint64_t offset, void *buffer, size_t length)
{
    /* Behind the end there is nothing to read ahead. A file system that refuses here is not mapped
     * either: that may have it ask its server. */
    if (read_nowait(fd, BEHIND_ANY_END, buffer, 1) == -EOPNOTSUPP)
        return -EOPNOTSUPP;
    if (!may_be_present(fd, offset, length))
        return 0;
    /* For who is not told: a page that is missing here is all that the storage reads in vain. */
    int first = read_nowait(fd, offset, buffer, length < PAGE_BYTES ? length : PAGE_BYTES);
    return first == 1 ? read_nowait(fd, offset, buffer, length) : first;
}

ssize_t file_read_direct(int fd, uint64_t offset, void *buffer, size_t length)
{
    size_t done = 0, reached = 0;
    unsigned futile = 0;
    while (reached < length && futile < MAX_FUTILE_READS) {
        size_t ask = (length - done + DIRECT_ALIGNMENT - 1) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
        ssize_t got = pread(fd, (char *)buffer + done, ask, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        futile = got < DIRECT_ALIGNMENT ? futile + 1 : 0;
        reached = done + (size_t)got > reached ? done + (size_t)got : reached;
        /* What ends within a block goes on from its start. */
        done = (done + (size_t)got) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    }
    return (ssize_t)(reached < length ? reached : length);
}
