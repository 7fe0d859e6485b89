/* SPDX-License-Identifier: MIT */
#include "verify/manifest_file.h"

#include "base/error.h"
#include "base/write_all.h"
#include "digest/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_CAPACITY 64

static int failed(struct unshard_error *error, const char *source, const char *step)
{
    return error_set(error, "write-error", errno, "%s/" MANIFEST_NAME ": cannot %s: %s", source,
                     step, strerrordesc_np(errno));
}

static int create(int directory, char name[NAME_CAPACITY])
{
    unsigned long long number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return -1;
    snprintf(name, NAME_CAPACITY, "." MANIFEST_NAME ".new-%016llx", number);
    return openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
}

int manifest_file_write(int directory, const char *source, const struct text *text,
                        struct unshard_error *error)
{
    char name[NAME_CAPACITY];
    int result = 0, fd = create(directory, name);
    if (fd < 0)
        return failed(error, source, "create it");
    if (write_all(fd, text->data, text->length) != 0)
        result = failed(error, source, "write it");
    else if (fsync(fd) != 0)
        result = failed(error, source, "flush it");
    if (close(fd) != 0 && result == 0)
        result = failed(error, source, "close it");
    if (result == 0 && renameat(directory, name, directory, MANIFEST_NAME) != 0)
        result = failed(error, source, "rename it into place");
    if (result != 0)
        unlinkat(directory, name, 0);
    else if (fsync(directory) != 0)
        result = failed(error, source, "flush its directory");
    return result;
}
