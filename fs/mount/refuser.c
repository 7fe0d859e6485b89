/* SPDX-License-Identifier: MIT */
#include "fs/mount/refuser.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/host/monotonic.h"
#include "fs/kernel/journal.h"

#define AGAIN_MS 20
/* The kernel hands out no request when its largest one, a WRITE, would not fit. */
#define REQUEST_BYTES ((1u << 20) + (64u << 10))

static bool wants_answer(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
           opcode != FUSE_NOTIFY_REPLY;
}

static void refuse(int device, const void *request)
{
    const struct fuse_in_header *in = request;
    struct fuse_out_header out = {sizeof out, -EIO, in->unique};
    if (write(device, &out, sizeof out) < 0)
        errno = 0; /* nobody waits for it any more */
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
        if (length >= (ssize_t)sizeof *in && wants_answer(in->opcode))
            refuse(device, request);
    }
}

static void refuse_journal(struct journal *journal, int device)
{
    static _Alignas(struct fuse_in_header) char request[JOURNAL_REQUEST_MAX];
    bool doomed;
    while (journal && journal_next(journal, request, &doomed) > 0)
        refuse(device, request);
}

void refuse_until_gone(const struct refusal *refusal)
{
    int device = refusal->device;
    struct journal *journal = journal_new(refusal->journal_area, refusal->generation);
    fcntl(device, F_SETFL, O_RDWR | O_NONBLOCK);
    do {
        refuse_journal(journal, device);
        journal_send_again(device);
        struct pollfd entry = {.fd = device, .events = POLLIN};
        poll(&entry, 1, AGAIN_MS);
    } while (refuse_queue(device) && !refusal->are_gone(refusal->context));
    journal_free(journal);
}
