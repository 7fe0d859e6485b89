/* SPDX-License-Identifier: MIT
 * The death monitor: a small process that outlives the daemon's death.
 *
 * A store waits, unkillably, for a page that an unanswered READ has locked. A daemon killed in that
 * moment never finishes dying, /dev/fuse stays open, and readers hang for ever. The monitor is told
 * by the kernel when the daemon's main thread ends (which does happen), aborts the connection and
 * takes the mount away. It holds no descriptor of the daemon's and opens nothing of the mount. */
#ifndef FS_MONITOR_H
#define FS_MONITOR_H

#include <sys/types.h>

#include "unshard.h"

struct monitor {
    pid_t process; /* 0: none */
};

/* Forks the monitor of the mount at `path` (canonical) with this connection number. Must be called
 * from the main thread while it is the only one, with SIGUSR1 blocked. */
int monitor_start(struct monitor *monitor, const char *path, unsigned connection,
                  struct unshard_error *error);
/* Ends and reaps it without its doing anything. Does not block for long. */
void monitor_stop(struct monitor *monitor);

#endif
