/* SPDX-License-Identifier: MIT
 *
 * Reads files one after the other as a loader would and tells how long it took.
 * usage: reader read|mmap FILE...     prints {"bytes":N,"seconds":S,"sum":N}
 * Every 8-byte word is added up, so that each mode really has the bytes in hand.
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

enum { READ_SIZE = 1 << 20 };

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
    static _Alignas(4096) unsigned char buffer[READ_SIZE];
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

static int read_file(const char *path, int (*how)(int, struct totals *), struct totals *totals)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result;

    if (fd < 0)
        return -errno;
    result = how(fd, totals);
    close(fd);
    return result;
}

int main(int argc, char **argv)
{
    struct totals totals = {0, 0};
    double begin = now();

    if (argc < 3 || (strcmp(argv[1], "read") && strcmp(argv[1], "mmap"))) {
        fprintf(stderr, "usage: reader read|mmap FILE...\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        int result = read_file(argv[i], argv[1][0] == 'r' ? by_read : by_mmap, &totals);

        if (result) {
            fprintf(stderr, "reader: %s: %s\n", argv[i], strerror(-result));
            return 1;
        }
    }
    printf("{\"bytes\":%" PRIu64 ",\"seconds\":%.6f,\"sum\":%" PRIu64 "}\n", totals.bytes,
           now() - begin, totals.sum);
    return 0;
}
