/* SPDX-License-Identifier: MIT */
#include "digest/secret.h"

#include "base/error.h"
#include "base/read_fully.h"
#include "base/write_all.h"
#include "digest/digest_cache_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME ".secret"

int secret_random(struct secret *out)
{
    ssize_t got;
    do
        got = getrandom(out->bytes, sizeof out->bytes, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof out->bytes ? 0 : -EIO;
}

/* 0, -ENOENT, or another negative errno. */
static int read_secret(int directory, struct secret *out)
{
    uint8_t bytes[SECRET_BYTES + 1];
    struct stat status;
    int fd = openat(directory, NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = 0;
    if (fstat(fd, &status) != 0)
        result = -errno;
    else if (!S_ISREG(status.st_mode) || !cache_is_own(&status) || (status.st_mode & 077) != 0)
        result = -EPERM;
    else if (read_fully(fd, 0, bytes, sizeof bytes) != SECRET_BYTES)
        result = -EINVAL;
    else
        memcpy(out->bytes, bytes, SECRET_BYTES);
    close(fd);
    return result;
}

/* Under a name of its own first, so that nobody ever sees a part; of two that come at the same time
 * one stays. */
static int make_secret(int directory)
{
    struct secret made;
    unsigned long long number;
    char temporary[64];
    int result = secret_random(&made);
    if (result != 0 || getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return -EIO;
    snprintf(temporary, sizeof temporary, ".new-%016llx", number);
    int fd =
        openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    result = write_all(fd, made.bytes, sizeof made.bytes);
    if (result == 0 && fsync(fd) != 0)
        result = -errno;
    close(fd);
    if (result == 0 && linkat(directory, temporary, directory, NAME, 0) != 0 && errno != EEXIST)
        result = -errno;
    unlinkat(directory, temporary, 0);
    return result;
}

int secret_load(int directory, struct secret *out, struct unshard_error *error)
{
    int result = read_secret(directory, out);
    if (result == -ENOENT) {
        result = make_secret(directory);
        result = result == 0 ? read_secret(directory, out) : result;
    }
    return result == 0
               ? 0
               : error_set(error, "no-cache-directory", -result,
                           "%s in the cache directory cannot be used (%s): remove it, or make "
                           "it this user's, with mode 0600",
                           NAME, strerrordesc_np(-result));
}
