/* SPDX-License-Identifier: MIT */
#include "fs/mount/refuser.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "fs/host/monotonic.h"

#define RESEND_MS 50
#define NOTIFY_RESEND 7 /* of <linux/fuse.h> 7.40 */
/* The kernel hands out no request when its largest one, a WRITE, would not fit. */
#define REQUEST_BYTES ((1u << 20) + (64u << 10))

static bool wants_answer(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
           opcode != FUSE_NOTIFY_REPLY;
}

/* Refuses all that waits. false: the connection has ended. */
static bool refuse_queue(int device)
{
    static _Alignas(struct fuse_in_header) char request[REQUEST_BYTES];
    const struct fuse_in_header *in = (const struct fuse_in_header *)request;
    for (;;) {
        ssize_t length = read(device, request, sizeof request);
        if (length < 0 && errno == EAGAIN)
            return true;
        if (length < 0 && errno != EINTR && errno != ENOENT) /* the latter: it was interrupted */
            return false;
        if (length < (ssize_t)sizeof *in || !wants_answer(in->opcode))
            continue;
        struct fuse_out_header out = {sizeof out, -ENOTCONN, in->unique};
        if (write(device, &out, sizeof out) < 0)
            errno = 0; /* nobody waits for it any more */
    }
}

/* The kernel may be too old for it: requests that the daemon had read then wait for its end. */
static void ask_again(int device)
{
    struct fuse_out_header notification = {sizeof notification, NOTIFY_RESEND, 0};
    if (write(device, &notification, sizeof notification) < 0)
        errno = 0;
}

void refuse_until_gone(int device, pid_t daemon)
{
    fcntl(device, F_SETFL, O_RDWR | O_NONBLOCK);
    int64_t next = 0;
    while (refuse_queue(device) && getppid() == daemon) {
        int64_t now = monotonic_ms();
        if (now >= next) {
            ask_again(device);
            next = now + RESEND_MS;
        }
        struct pollfd entry = {.fd = device, .events = POLLIN};
        poll(&entry, 1, (int)(next - now > 0 ? next - now : 0));
    }
}
