/* SPDX-License-Identifier: MIT
 *
 * What is told to systemd, or to whatever speaks its protocol, and what it keeps for us: see
 * sd_notify(3) and sd_listen_fds(3).
 *
 * A service that is confined to a mount namespace of its own cannot make a mount that others see.
 * So a process outside of it makes the mount and leaves the descriptor with the manager, which
 * hands it to the confined daemon when it starts that. */
#ifndef FS_HOST_SERVICE_MANAGER_H
#define FS_HOST_SERVICE_MANAGER_H

#include "unshard.h"

/* Sends a state such as "STOPPING=1" to the service manager of $NOTIFY_SOCKET, if there is one.
 * Does not block for long. Errors are not reported: nobody could act on them. */
void service_manager_tell(const char *state);

/* Leaves a duplicate of fd with the manager, and returns when it has it; the caller keeps fd.
 * Blocks for some seconds at most. 0 or a negative errno with *error filled: there may be no
 * manager. */
int service_manager_keep(int fd, struct unshard_error *error);

/* The descriptor of a mount that service_manager_keep has left for this process, or -1. Those of
 * mounts that have ended are closed. The caller owns it; call once, with a single thread. */
int service_manager_given(void);

#endif
