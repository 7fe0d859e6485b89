/* SPDX-License-Identifier: MIT
 *
 * Reads files one after the other as a loader would and tells how long it took.
 * usage: reader read|mmap|direct FILE...     prints {"bytes":N,"seconds":S,"sum":N}
 *        reader touch BYTES                  the same of fresh memory, a byte of each page
 * Every 8-byte word of a file is added up, so that each mode really has the bytes in hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 1 << 20, PAGE = 4096 };

struct totals {
    uint64_t bytes, sum;
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void add_up(struct totals *totals, const void *data, size_t size)
{
    const uint64_t *words = data;
    uint64_t sum = 0;

    for (size_t i = 0; i < size / sizeof(*words); i++)
        sum += words[i];
    totals->sum += sum;
    totals->bytes += size;
}

static int by_read(int fd, struct totals *totals)
{
    static _Alignas(PAGE) unsigned char buffer[READ_SIZE];
    ssize_t got;

    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        add_up(totals, buffer, (size_t)got);
    return got < 0 ? -errno : 0;
}

static int by_mmap(int fd, struct totals *totals)
{
    struct stat attributes;
    void *data;
    size_t size;

    if (fstat(fd, &attributes))
        return -errno;
    size = (size_t)attributes.st_size;
    if (size == 0)
        return 0;
    /* As torch maps a safetensors file. */
    data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return -errno;
    add_up(totals, data, size);
    munmap(data, size);
    return 0;
}

struct mode {
    const char *name;
    int (*read)(int fd, struct totals *totals);
    int flags;
};

static const struct mode modes[] = {
    {"read", by_read, 0}, {"mmap", by_mmap, 0}, {"direct", by_read, O_DIRECT}, {NULL, NULL, 0}};

static int read_file(const char *path, const struct mode *mode, struct totals *totals)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | mode->flags);
    int result;

    if (fd < 0)
        return -errno;
    result = mode->read(fd, totals);
    close(fd);
    return result;
}

static int read_files(char **paths, const struct mode *mode, struct totals *totals)
{
    for (; *paths; paths++) {
        int result = read_file(*paths, mode, totals);

        if (result) {
            fprintf(stderr, "reader: %s: %s\n", *paths, strerror(-result));
            return 1;
        }
    }
    return 0;
}

static int touch(size_t size, struct totals *totals)
{
    unsigned char *data =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (data == MAP_FAILED)
        return 1;
    /* Small pages, as those of files are. */
    madvise(data, size, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < size; at += PAGE)
        data[at] = 1;
    totals->bytes = size;
    munmap(data, size);
    return 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: reader read|mmap|direct FILE... | touch BYTES\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct totals totals = {0, 0};
    const struct mode *mode = modes;
    double begin = now();
    int result;

    if (argc < 3)
        return usage();
    while (mode->name && strcmp(argv[1], mode->name))
        mode++;
    if (mode->name)
        result = read_files(argv + 2, mode, &totals);
    else if (!strcmp(argv[1], "touch"))
        result = touch(strtoull(argv[2], NULL, 10), &totals);
    else
        return usage();
    printf("{\"bytes\":%" PRIu64 ",\"seconds\":%.6f,\"sum\":%" PRIu64 "}\n", totals.bytes,
           now() - begin, totals.sum);
    return result;
}
