/* SPDX-License-Identifier: MIT */
#include "fs/kernel/greeting.h"

#include <linux/fuse.h>
#include <string.h>

#define MOST 512u /* INIT has 104 bytes, its reply 80; both grow now and then */

struct kept_greeting {
    uint32_t request_length, reply_length;
    char request[MOST], reply[MOST];
};

void greeting_heard(struct greeting *greeting, const void *request, size_t length)
{
    const struct fuse_in_header *in = request;
    if (length < sizeof *in || length > MOST || in->opcode != FUSE_INIT || !greeting->keep)
        return;
    greeting->kept = unshard_keep_add(greeting->keep, UNSHARD_KEEP_SESSION, sizeof *greeting->kept);
    if (!greeting->kept)
        return;
    memcpy(greeting->kept->request, request, length);
    greeting->kept->request_length = (uint32_t)length;
    greeting->unique = in->unique;
}

/* The length; 0: it is too long. */
static size_t gather(char out[MOST], const struct iovec *pieces, int count)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        if (pieces[i].iov_len > MOST - length)
            return 0;
        memcpy(out + length, pieces[i].iov_base, pieces[i].iov_len);
        length += pieces[i].iov_len;
    }
    return length;
}

bool greeting_answered(struct greeting *greeting, const struct iovec *pieces, int count)
{
    const struct fuse_out_header *out = pieces[0].iov_base;
    if (greeting->unique == 0 || out->unique != greeting->unique)
        return false;
    char reply[MOST];
    size_t length = gather(reply, pieces, count);
    struct kept_greeting *kept = greeting->kept;
    greeting->unique = 0;
    if (greeting->again) {
        greeting->differs = length != kept->reply_length || memcmp(reply, kept->reply, length) != 0;
        return true;
    }
    if (length > 0 && out->error == 0) {
        memcpy(kept->reply, reply, length);
        kept->reply_length = (uint32_t)length;
        unshard_keep_commit(kept);
    }
    return false;
}

static int note(void *context, void *record, size_t bytes)
{
    struct greeting *greeting = context;
    const struct kept_greeting *kept = record;
    if (bytes < sizeof *kept || kept->request_length > MOST || kept->reply_length > MOST ||
        kept->request_length < sizeof(struct fuse_in_header))
        return 0;
    greeting->kept = record;
    return 1;
}

size_t greeting_repeat(struct greeting *greeting, void *request, size_t capacity)
{
    greeting->kept = NULL;
    unshard_keep_each(greeting->keep, UNSHARD_KEEP_SESSION, note, greeting);
    if (!greeting->kept || greeting->kept->request_length > capacity)
        return 0;
    memcpy(request, greeting->kept->request, greeting->kept->request_length);
    greeting->unique = ((const struct fuse_in_header *)request)->unique;
    greeting->again = true;
    return greeting->kept->request_length;
}
