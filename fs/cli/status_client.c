/* SPDX-License-Identifier: MIT */
#include "fs/cli/status_client.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A checkpoint of 100,000 shards fits; what is larger is no status. */
#define MAX_BYTES ((size_t)64 << 20)

/* Reads to the end: the file in a mount has no useful size, being made as it is opened. */
static char *read_all(int fd)
{
    size_t capacity = 65536, length = 0;
    char *buffer = malloc(capacity);
    while (buffer) {
        ssize_t count = read(fd, buffer + length, capacity - length - 1);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            buffer[length] = '\0';
            if (count == 0)
                return buffer;
            break;
        }
        length += (size_t)count;
        if (length + 1 < capacity)
            continue;
        char *larger = capacity < MAX_BYTES ? realloc(buffer, capacity * 2) : NULL;
        if (!larger) {
            errno = capacity < MAX_BYTES ? ENOMEM : EFBIG;
            break;
        }
        buffer = larger;
        capacity *= 2;
    }
    int number = errno;
    free(buffer);
    errno = number;
    return NULL;
}

static int open_status(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0 || S_ISREG(stat.st_mode))
        return fd;
    close(fd);
    char inner[PATH_MAX];
    int length = snprintf(inner, sizeof inner, "%s/.unshard/status.json", path);
    if (length < 0 || (size_t)length >= sizeof inner) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(inner, O_RDONLY | O_CLOEXEC);
}

static void explain(const char *path, int number, char *message, size_t capacity)
{
    struct stat stat_buffer;
    bool exists = stat(path, &stat_buffer) == 0;
    if ((number == ENOENT || number == ENOTDIR) && exists)
        snprintf(message, capacity, "%s is not an unshard mount: it has no .unshard/status.json",
                 path);
    else if (number == ENOTCONN || number == ECONNABORTED)
        snprintf(message, capacity,
                 "%s: the daemon of this mount has died; 'unshard umount %s' clears it away", path,
                 path);
    else if (number == EACCES && exists)
        snprintf(message, capacity, "%s: permission denied", path);
    else if (number == EACCES)
        snprintf(message, capacity,
                 "%s: permission denied; the mount of another user is readable with allow_other",
                 path);
    else
        snprintf(message, capacity, "%s: %s", path, strerror(number));
}

char *status_client_read(const char *path, char *message, size_t capacity, int *error_number)
{
    int fd = open_status(path);
    char *json = fd >= 0 ? read_all(fd) : NULL;
    int number = json ? 0 : errno;
    if (fd >= 0)
        close(fd);
    *error_number = number;
    if (!json)
        explain(path, number, message, capacity);
    return json;
}

bool status_client_unwell(const struct unshard_status *status)
{
    return status->errors > 0 || status->state == UNSHARD_MOUNT_FAILED ||
           status->state == UNSHARD_MOUNT_DEGRADED;
}

pid_t status_client_daemon(const char *json)
{
    cJSON *root = cJSON_Parse(json);
    const cJSON *pid = cJSON_GetObjectItemCaseSensitive(root, "pid");
    pid_t result = 0;
    if (cJSON_IsNumber(pid) && pid->valuedouble >= 1 && pid->valuedouble <= INT_MAX)
        result = (pid_t)pid->valuedouble;
    cJSON_Delete(root);
    return result;
}
