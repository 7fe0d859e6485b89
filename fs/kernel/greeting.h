/* SPDX-License-Identifier: MIT
 *
 * The kernel greets whoever serves a mount once (INIT), and what was agreed then holds for as long
 * as the connection. So the request and its reply are kept for the process that goes on with it:
 * there the request is given to the session once more, and what that replies does not go to the
 * kernel but is compared. Another reply means that this program would not serve as it was agreed
 * on: it must not go on.
 *
 * The main thread uses it before there are others, but for the first greeting, which the threads
 * of the loop see: of these one reads it, and it alone answers. The others, and the threads that
 * store meanwhile, see no more than that what they write is no answer to it. */
#ifndef FS_KERNEL_GREETING_H
#define FS_KERNEL_GREETING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "unshard.h"

struct greeting {
    struct unshard_keep *keep; /* NULL: nothing is kept */
    struct kept_greeting *kept;
    _Atomic uint64_t unique; /* of the INIT under way; 0: none is. Every reply and store asks */
    bool again;              /* it is that of an earlier process */
    bool differs;            /* ... and what was replied is not what it was then */
};

/* A request was read. */
void greeting_heard(struct greeting *greeting, const void *request, size_t length);
/* A reply is to be written. true: it is not for the kernel, and counts as written. */
bool greeting_answered(struct greeting *greeting, const struct iovec *pieces, int count);
/* What an earlier process has kept: copies the request to `request`. Its length; 0: there is none,
 * or it makes no sense. */
size_t greeting_repeat(struct greeting *greeting, void *request, size_t capacity);

#endif
