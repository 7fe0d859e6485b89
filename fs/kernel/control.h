/* SPDX-License-Identifier: MIT
 * Serves what commands ask of a mount (control_protocol.h), in a thread of its own: dropping pages
 * waits for pages that unanswered reads have locked, so no thread that answers reads may do it. */
#ifndef FS_KERNEL_CONTROL_H
#define FS_KERNEL_CONTROL_H

#include <stdbool.h>

#include "fs/kernel/control_protocol.h"
#include "fs/kernel/filesystem.h"

/* Starts the thread for a filesystem with session, engine and inodes. 0 with filesystem->control
 * set, or a negative errno. */
int control_start(struct filesystem *filesystem);
struct fuse_req;

/* Answers a request, with its ticket in message->ticket; does not wait for it to be served: ENOENT,
 * EAGAIN, ENOTTY for an unknown command, ESHUTDOWN. What it names is looked for first, in the room
 * where requests wait. Thread-safe, never blocks. */
void control_request(struct filesystem *filesystem, struct fuse_req *request, unsigned command,
                     struct control_message *message);
/* Begins no further work and waits for what runs, at most timeout_ms. 0, or -ETIMEDOUT. NULL is
 * allowed. */
int control_quiesce(struct control *control, unsigned timeout_ms);
/* After a control_quiesce that gave 0: ends the thread and frees it. NULL is allowed. */
void control_free(struct control *control);

#endif
