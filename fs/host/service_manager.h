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

#include <stdbool.h>

#include "unshard.h"

/* Sends a state such as "STOPPING=1" to the service manager of $NOTIFY_SOCKET, if there is one.
 * Does not block for long. Errors are not reported: nobody could act on them. */
void service_manager_tell(const char *state);

/* Leaves a duplicate of fd with the manager under a name, and returns when it has it; the caller
 * keeps fd. Blocks for some seconds at most. 0 or a negative errno with *error filled: there may be
 * no manager. */
int service_manager_keep(const char *name, int fd, struct unshard_error *error);

#define SERVICE_MANAGER_MOST 4u /* descriptors at once */

/* Whether the manager has told this very process that it keeps descriptors for it ($FDSTORE, since
 * systemd 254). Others it may have as well: then it has given some (below). */
bool service_manager_keeps(void);
/* The same for several descriptors, which get one name and no order, without waiting until the
 * manager has them; one that does not listen is waited for for a second. 0 or a negative errno. */
int service_manager_leave(const char *name, const int *fds, unsigned count);
/* The manager closes what it keeps under that name, soon. */
void service_manager_drop(const char *name);

/* Calls take with the number of its name, for each descriptor that the manager has kept under one
 * of the names and gives this process, and that is not of a connection that has ended; those are
 * closed. They are the taker's, and closed on exec. Call once, with a single thread. */
void service_manager_given(const char *const *names, unsigned count,
                           void (*take)(void *context, unsigned name, int fd), void *context);

#endif
