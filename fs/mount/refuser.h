/* SPDX-License-Identifier: MIT
 *
 * The end of a connection that no daemon will serve any more, and that maybe nobody can abort:
 * without root and without fusectl. Whoever holds the descriptor can end it by answering.
 *
 * - Requests that nobody had read are read and refused.
 * - Those that a daemon had read are in the journal, and refused from there; what its threads had
 *   just been given is found there later.
 * - Where the kernel can send again what was read (FUSE_NOTIFY_RESEND, Linux 6.9), it is asked to,
 *   for what found no room in the journal. Once is not enough: a thread that dies while it reads a
 *   request files that as being worked on only after the notification, and it may be the very one
 *   that a store waits for (fs/kernel/README.md 1.5).
 * - All of it again and again, until the old daemons are gone, which they are when their last
 *   threads have left the kernel. Then the descriptor is closed. Nobody else having it, the kernel
 *   ends the connection, and with it what came too late.
 *
 * Invariants: every request that is read is answered before the next one is read; `unique` goes
 * back as it came, since a bit of it says that the request was sent again; a reply that the kernel
 * no longer waits for (ENOENT) is none of our business. While this runs nobody hangs, also when a
 * daemon never ends because it hangs in its source: whoever asks gets EIO. It ends with the
 * daemons, with the mount (ENODEV), or by an abort, whichever comes first. */
#ifndef FS_MOUNT_REFUSER_H
#define FS_MOUNT_REFUSER_H

#include <stdbool.h>

struct refusal {
    int device;          /* of /dev/fuse */
    void *journal_area;  /* of those that have served */
    unsigned generation; /* one more than that of the last of them */
    bool (*are_gone)(void *context);
    void *context;
};

/* Refuses every request until the daemons are gone or the connection has ended. The caller then
 * closes the device. For one thread. */
void refuse_until_gone(const struct refusal *refusal);

#endif
