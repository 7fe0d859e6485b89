/* SPDX-License-Identifier: MIT
 * Another process of this program, or of another version of it. */
#ifndef FS_HOST_SPAWN_H
#define FS_HOST_SPAWN_H

#include <stddef.h>
#include <sys/types.h>

/* Starts `executable` with these arguments, in this environment and with one variable more
 * ("NAME=value"), with no signal blocked, ignored or handled. It has the standard descriptors, and
 * these under the numbers that they have here; others that are not closed on exec stay as well. The
 * process, a child of this one, or a negative errno. Safe in a process with other threads. */
pid_t spawn_process(const char *executable, char *const *arguments, const char *variable,
                    const int *descriptors, size_t count);

#endif
