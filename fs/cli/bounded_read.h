/* SPDX-License-Identifier: MIT
 *
 * Reading the status of a mount that may hang: another process does it and is left behind when it
 * does not come back. */
#ifndef FS_CLI_BOUNDED_READ_H
#define FS_CLI_BOUNDED_READ_H

#include <stddef.h>
#include <sys/types.h>

/* How long a command waits for a mount whose daemon, when it works, answers in milliseconds. */
#define ANSWER_MS 5000

/* A read under way. */
struct bounded_read {
    pid_t process;
    int fd; /* -1: it could not be started */
    int error_number;
};

/* Starts reading the status of the mount at `path` (or of a copy of it). Does not block. */
void bounded_read_begin(struct bounded_read *read, const char *path);
/* Waits for the answer, at most timeout_ms, and ends the read. As status_client_read, with
 * ETIMEDOUT when there was no answer. */
char *bounded_read_end(struct bounded_read *read, const char *path, int timeout_ms, char *message,
                       size_t capacity, int *error_number);
/* Both. */
char *bounded_read_status(const char *path, int timeout_ms, char *message, size_t capacity,
                          int *error_number);

#endif
