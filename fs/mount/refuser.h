/* SPDX-License-Identifier: MIT
 *
 * The end of a connection that nobody can abort: without root and without fusectl.
 *
 * Of a daemon that was killed in a store (fs/kernel/README.md 1.5) whoever else holds the
 * descriptor can end that by answering.
 *
 * - Requests that the daemon had not read are read and refused.
 * - Those that it had read are asked for again: FUSE_NOTIFY_RESEND (Linux 6.9) puts them back into
 *   the queue. Once is not enough: a thread that dies while it reads a request files that as being
 *   worked on only after the notification, and it may be the very one that a store waits for. So
 *   this is repeated until the process is gone, which it is when its last thread has left the
 *   kernel.
 * - Then the descriptor is closed. Nobody else having it, the kernel aborts the connection, and
 *   with it what came too late.
 *
 * Invariants: every request that is read is answered before the next one is read; `unique` goes
 * back as it came, since a bit of it says that the request was sent again; a reply that the kernel
 * no longer waits for (ENOENT) is none of our business. While this runs nobody hangs, also when the
 * process never ends because it hangs in its source: whoever asks gets ENOTCONN. It ends with the
 * process, with the mount (ENODEV), or by an abort, whichever comes first. */
#ifndef FS_MOUNT_REFUSER_H
#define FS_MOUNT_REFUSER_H

#include <sys/types.h>

/* Refuses every request of `device`, a descriptor of /dev/fuse, until `daemon`, our parent, is gone
 * or the connection has ended. The caller then closes it. In a process with one thread. */
void refuse_until_gone(int device, pid_t daemon);

#endif
