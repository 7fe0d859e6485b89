/* SPDX-License-Identifier: MIT
 * The log: one structured line per event, "time level component key=value ...", to standard error,
 * to a file, to the journal or to syslog. One log per process. */
#ifndef FS_LOG_H
#define FS_LOG_H

#include <stdarg.h>
#include <stdbool.h>

/* Chooses where lines go: path (appended to, created 0640) when it is not NULL; else the journal
 * when a service manager has connected standard error to it (JOURNAL_STREAM, see systemd.exec(5)),
 * with priorities as in sd-daemon(3); else syslog when `daemon`, else standard error. Call before
 * threads exist. Returns 0 or a negative errno; lines then go to standard error. */
int log_open(const char *path, bool daemon);

/* One line; component is a word such as "mount" or "engine". Control bytes become '?'. Thread-safe,
 * keeps errno, does not block longer than a write to the file does; syslog is never waited for. */
void log_line(int syslog_priority, const char *component, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void log_line_v(int syslog_priority, const char *component, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

#endif
