/* SPDX-License-Identifier: MIT
 * Whether somebody is in a container of ours. */
#ifndef FS_HOST_CONTAINED_H
#define FS_HOST_CONTAINED_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a process or thread is in another PID namespace than this process: one below it, as a
 * container's are, or one that we do not see into (0). What cannot be told counts as that. Reads
 * /proc. */
bool process_is_contained(pid_t process);

#endif
