/* SPDX-License-Identifier: MIT */
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "fs/syslog_socket.h"

#define LINE_CAPACITY 2048

/* Set once before threads exist. */
static int log_fd = STDERR_FILENO; /* -1: syslog */
static bool log_to_journal;        /* which adds the time itself */

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

int log_open(const char *path, bool daemon)
{
    log_fd = STDERR_FILENO;
    log_to_journal = false;
    if (path) {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
        if (fd < 0)
            return -errno;
        log_fd = fd;
    } else if (stderr_is_journal()) {
        /* A daemon's standard error becomes /dev/null. */
        int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
        log_fd = fd;
        log_to_journal = true;
    } else if (daemon) {
        int result = syslog_socket_open("/dev/log");
        if (result < 0)
            return result;
        log_fd = -1;
    }
    return 0;
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
    if (log_fd < 0)
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

void log_line_v(int syslog_priority, const char *component, const char *format, va_list arguments)
{
    int saved_errno = errno;
    char line[LINE_CAPACITY];
    size_t start = put_start(line, sizeof line, syslog_priority);
    int more = snprintf(line + start, sizeof line - start, "%s %s ", level_name(syslog_priority),
                        component);
    size_t used = start + (more > 0 ? (size_t)more : 0);
    if (used < sizeof line - 1)
        vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    make_printable(line);
    if (log_fd < 0) {
        syslog_socket_send(syslog_priority, line);
    } else {
        /* One write per line, so that lines of several threads do not mix. */
        size_t length = strlen(line);
        line[length] = '\n';
        ssize_t written = write(log_fd, line, length + 1);
        (void)written; /* nowhere left to complain */
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
