/* SPDX-License-Identifier: MIT
 *
 * What a command asks of the daemon of a mount: an ioctl(2) of `.unshard/status.json`. It needs no
 * socket and no writable file system, and reaches the daemon from wherever the mount can be seen,
 * another container included. Allowed to root and to the user whom the daemon runs as (else EPERM).
 *
 * A request is answered at once, with a ticket; tickets are served in order. */
#ifndef FS_KERNEL_CONTROL_PROTOCOL_H
#define FS_KERNEL_CONTROL_PROTOCOL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define CONTROL_COMPONENT_CAPACITY 4200

/* The same on 32 and on 64 bits. */
struct control_message {
    uint64_t ticket; /* out: of the request; of CONTROL_SERVED: the last one served */
    /* in: terminated, and below the mount: a component's name, the path of a file or that of a
     * directory, for all that is in it; "" for all that the daemon has in hand */
    char component[CONTROL_COMPONENT_CAPACITY];
};

/* Take the pages of what is named out of the page cache and prefetch it no more. ENOENT: there is
 * no such thing; EAGAIN: too many requests are waiting. */
#define CONTROL_EVICT _IOWR('u', 1, struct control_message)
/* Prefetch what is named, anew if it had been. Of a directory that is what the kernel has been told
 * of: who asks looks everything in it up first. Errors as above. */
#define CONTROL_WARM _IOWR('u', 2, struct control_message)
/* How far the daemon has come with what it was asked for. */
#define CONTROL_SERVED _IOR('u', 3, struct control_message)
/* Have another program go on with the mount: in `component` its absolute path, as the daemon sees
 * it. Not for processes of containers, root or not. Answered when that has shown that it can.
 * ticket: 0: it does so now, and this daemon ends; else an errno, with the reason in `component`,
 * and nothing changes. */
#define CONTROL_UPGRADE _IOWR('u', 4, struct control_message)

#endif
