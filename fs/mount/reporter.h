/* SPDX-License-Identifier: MIT
 * Tells the world outside the mount how it is doing: the files of status_file= and metrics_file=,
 * and the service manager's STATUS=. A thread makes the texts; a process of its own writes the
 * files, so that a file system that hangs holds neither the daemon nor its end. */
#ifndef FS_MOUNT_REPORTER_H
#define FS_MOUNT_REPORTER_H

#include "unshard.h"

struct reporter;

/* Forks the writer; only while the process has a single thread. Either path, absolute, may be NULL.
 * *out is NULL when there is nobody to tell. 0 or a negative errno. */
int reporter_prepare(const char *status_path, const char *metrics_path, struct reporter **out);
/* Starts the thread; the engine is used until reporter_stop. 0 or a negative errno. NULL is
 * allowed. */
int reporter_start(struct reporter *reporter, struct unshard_engine *engine);
/* Ends the thread and lets the writer take its files away; does not wait for a file system. Frees
 * it. NULL is allowed. */
void reporter_stop(struct reporter *reporter);

#endif
