/* SPDX-License-Identifier: MIT */
#include "fs/host/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/log_writer.h"
#include "fs/host/syslog_socket.h"
#include "fs/host/trusted_file.h"

/* Set once before threads exist. */
static bool log_to_syslog;
static bool log_to_journal; /* which adds the time itself */

static const char *level_name(int priority)
{
    static const char *const names[] = {"emerg",   "alert",  "crit", "error",
                                        "warning", "notice", "info", "debug"};
    return names[priority & LOG_PRIMASK];
}

/* Whether standard error is the stream that the service manager says it is: a child of a service
 * may have the variable and another standard error. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat attributes;
    char own[64];
    if (!stream || fstat(STDERR_FILENO, &attributes))
        return false;
    snprintf(own, sizeof own, "%llu:%llu", (unsigned long long)attributes.st_dev,
             (unsigned long long)attributes.st_ino);
    return strcmp(stream, own) == 0;
}

/* The daemon leaves the directory that a relative path begins in. */
static int open_path(const char *path)
{
    char absolute[PATH_MAX] = "";
    if (path[0] != '/' && !getcwd(absolute, sizeof absolute))
        return -errno;
    size_t used = strlen(absolute);
    if ((size_t)snprintf(absolute + used, sizeof absolute - used, "/%s", path) >=
        sizeof absolute - used)
        return -ENAMETOOLONG;
    int fd = trusted_file_append(absolute);
    if (fd < 0)
        return fd;
    int result = log_writer_set(fd, absolute);
    if (result)
        close(fd);
    return result;
}

int log_open(const char *path, bool daemon)
{
    if (path)
        return open_path(path);
    if (stderr_is_journal()) {
        /* A daemon's standard error becomes /dev/null. */
        int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        log_to_journal = fd >= 0;
        return fd < 0 ? -errno : log_writer_set(fd, NULL);
    }
    if (daemon) {
        int result = syslog_socket_open("/dev/log");
        log_to_syslog = result >= 0;
        return result < 0 ? result : 0;
    }
    return log_writer_set(STDERR_FILENO, NULL);
}

const char *log_open_reason(int result)
{
    switch (-result) {
    case ELOOP:
        return "a symbolic link in its path belongs to another user, or there are too many";
    case EPERM:
        return "it belongs to another user or has other names, in a directory that others may "
               "write to; remove it, or choose another directory";
    case ENXIO:
        return "it is a socket";
    case EINVAL:
        return "it is no file, FIFO or terminal";
    default:
        return strerror(-result);
    }
}

static size_t put_time(char *line, size_t capacity)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t used = strftime(line, capacity, "%Y-%m-%dT%H:%M:%S", &parts);
    int more = snprintf(line + used, capacity - used, ".%03ldZ ", now.tv_nsec / 1000000);
    return used + (size_t)more;
}

/* What stands before the level: the time, or the priority where the reader adds the time. */
static size_t put_start(char *line, size_t capacity, int priority)
{
    if (log_to_syslog)
        return 0;
    if (!log_to_journal)
        return put_time(line, capacity);
    return (size_t)snprintf(line, capacity, "<%d>", priority & LOG_PRIMASK);
}

static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

static size_t compose(char line[LOG_LINE_CAPACITY], int syslog_priority, const char *component,
                      const char *format, va_list arguments)
{
    size_t start = put_start(line, LOG_LINE_CAPACITY, syslog_priority);
    int more = snprintf(line + start, LOG_LINE_CAPACITY - start, "%s %s ",
                        level_name(syslog_priority), component);
    size_t used = start + (more > 0 ? (size_t)more : 0);
    if (used < LOG_LINE_CAPACITY - 1)
        vsnprintf(line + used, LOG_LINE_CAPACITY - used - 1, format, arguments);
    make_printable(line);
    size_t length = strlen(line);
    line[length] = '\n';
    line[length + 1] = '\0';
    return length + 1;
}

size_t log_compose(char line[LOG_LINE_CAPACITY], int syslog_priority, const char *component,
                   const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = compose(line, syslog_priority, component, format, arguments);
    va_end(arguments);
    return length;
}

void log_line_v(int syslog_priority, const char *component, const char *format, va_list arguments)
{
    int saved_errno = errno;
    char line[LOG_LINE_CAPACITY];
    size_t length = compose(line, syslog_priority, component, format, arguments);
    if (log_to_syslog) {
        line[length - 1] = '\0';
        syslog_socket_send(syslog_priority, line);
    } else {
        log_writer_put(line, length);
    }
    errno = saved_errno;
}

void log_line(int syslog_priority, const char *component, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line_v(syslog_priority, component, format, arguments);
    va_end(arguments);
}
