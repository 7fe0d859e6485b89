/* SPDX-License-Identifier: MIT
 *
 * The status of a mount, as its clients get at it. */
#ifndef FS_CLI_STATUS_CLIENT_H
#define FS_CLI_STATUS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "unshard.h"

/* The status JSON of the mount at `path`, or of a copy of it when `path` is a file. The caller
 * frees it. NULL with one line about why in message; *error_number is then a positive errno: ENOENT
 * no unshard mount, ENOTCONN its daemon is dead. */
char *status_client_read(const char *path, char *message, size_t capacity, int *error_number);
/* Whether a status tells of anything that has failed. */
bool status_client_unwell(const struct unshard_status *status);
/* The process that serves a mount, from its status JSON; 0 when it does not tell. */
pid_t status_client_daemon(const char *json);

#endif
