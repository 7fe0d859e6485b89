/* SPDX-License-Identifier: MIT
 * The log: one structured line per event, "time level component key=value ...", to standard error,
 * to a file, to the journal or to syslog. One log per process. */
#ifndef FS_HOST_LOG_H
#define FS_HOST_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define LOG_LINE_CAPACITY 2048

/* Chooses where lines go: path (see trusted_file_append) when it is not NULL; else the journal
 * when a service manager has connected standard error to it (JOURNAL_STREAM, see systemd.exec(5)),
 * with priorities as in sd-daemon(3); else syslog when `daemon`, else standard error. Call before
 * threads exist. Returns 0 or a negative errno; lines then go to standard error. What is not syslog
 * is written by log_writer, whose thread is to be started and ended. */
int log_open(const char *path, bool daemon);
/* Why log_open failed, for a person. A static string, or one of strerror. */
const char *log_open_reason(int result);

/* One line; component is a word such as "mount" or "engine". Control bytes become '?'. Thread-safe,
 * keeps errno, never blocks: what cannot be written in time is counted, and the count written. */
void log_line(int syslog_priority, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_line_v(int syslog_priority, const char *component, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));
/* Makes such a line, with its newline, instead of logging it. Returns its length. */
size_t log_compose(char line[LOG_LINE_CAPACITY], int syslog_priority, const char *component,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
