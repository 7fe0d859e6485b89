/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/retriever.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "fs/kernel/features.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"

/* Loop threads wait for nothing: when none has come by then, the connection is ending, or there is
 * so much to do that storage is as good. */
#define MOST_NS 300000000

struct ticket {
    struct ticket *next;
    uint64_t number;
    char *out;
    size_t size, got;
    bool filling, done;
};

struct retriever {
    pthread_mutex_t mutex; /* a leaf; of all of this and of the tickets */
    pthread_cond_t changed;
    struct ticket *first;
    uint64_t last_number;
};

struct retriever *retriever_new(void)
{
    pthread_condattr_t monotonic;
    struct retriever *retriever = calloc(1, sizeof *retriever);
    if (!retriever)
        return NULL;
    pthread_mutex_init(&retriever->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&retriever->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return retriever;
}

void retriever_free(struct retriever *retriever)
{
    if (!retriever)
        return;
    pthread_mutex_destroy(&retriever->mutex);
    pthread_cond_destroy(&retriever->changed);
    free(retriever);
}

static void add(struct retriever *retriever, struct ticket *ticket)
{
    pthread_mutex_lock(&retriever->mutex);
    ticket->number = ++retriever->last_number;
    ticket->next = retriever->first;
    retriever->first = ticket;
    pthread_mutex_unlock(&retriever->mutex);
}

/* Nobody finds the ticket any more. The caller holds the mutex. */
static void take_away(struct retriever *retriever, struct ticket *ticket)
{
    struct ticket **link = &retriever->first;
    while (*link != ticket)
        link = &(*link)->next;
    *link = ticket->next;
}

/* Waits for the answer. What came of it, or -ETIMEDOUT. */
static ssize_t wait_for(struct retriever *retriever, struct ticket *ticket)
{
    struct timespec until;
    int result = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += MOST_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&retriever->mutex);
    while (!ticket->done && (ticket->filling || result == 0))
        if (ticket->filling) /* which takes no time, and must be waited for */
            pthread_cond_wait(&retriever->changed, &retriever->mutex);
        else
            result = pthread_cond_timedwait(&retriever->changed, &retriever->mutex, &until);
    take_away(retriever, ticket);
    ssize_t got = ticket->done ? (ssize_t)ticket->got : -ETIMEDOUT;
    pthread_mutex_unlock(&retriever->mutex);
    return got;
}

static void forget(struct retriever *retriever, struct ticket *ticket)
{
    pthread_mutex_lock(&retriever->mutex);
    take_away(retriever, ticket);
    pthread_mutex_unlock(&retriever->mutex);
}

/* One piece that the kernel hands over at once. */
static int take_piece(struct filesystem *filesystem, uint64_t nodeid, uint64_t offset, char *out,
                      size_t size)
{
    struct ticket ticket = {.out = out, .size = size};
    add(filesystem->retriever, &ticket);
    int result = fuse_lowlevel_notify_retrieve(filesystem->session, nodeid, size, (off_t)offset,
                                               (void *)(uintptr_t)ticket.number);
    if (result != 0) {
        forget(filesystem->retriever, &ticket);
        return result;
    }
    ssize_t got = wait_for(filesystem->retriever, &ticket);
    return got < 0 ? (int)got : (size_t)got == size ? 0 : -ENODATA;
}

int retriever_take(struct filesystem *filesystem, uint32_t view, uint64_t offset, void *out,
                   size_t size)
{
    uint64_t nodeid = inode_table_view_nodeid(filesystem->inodes, view);
    int result = nodeid ? 0 : -ENODATA;
    for (size_t done = 0, piece; done < size && result == 0; done += piece) {
        /* Up to a page boundary, so that no piece has more pages than the kernel hands over. */
        uint64_t end = (offset + done + LARGEST_READ) / LARGEST_READ * LARGEST_READ;
        piece = size - done < end - offset - done ? size - done : end - offset - done;
        result = take_piece(filesystem, nodeid, offset + done, (char *)out + done, piece);
    }
    return result;
}

void retriever_answer(struct retriever *retriever, uint64_t number, struct fuse_bufvec *bytes)
{
    pthread_mutex_lock(&retriever->mutex);
    struct ticket *ticket = retriever->first;
    while (ticket && ticket->number != number)
        ticket = ticket->next;
    if (ticket)
        ticket->filling = true;
    pthread_mutex_unlock(&retriever->mutex);
    if (!ticket)
        return;
    struct fuse_bufvec to = FUSE_BUFVEC_INIT(ticket->size);
    to.buf[0].mem = ticket->out;
    ssize_t got = fuse_buf_copy(&to, bytes, 0);
    pthread_mutex_lock(&retriever->mutex);
    ticket->got = got > 0 ? (size_t)got : 0;
    ticket->done = true;
    ticket->filling = false;
    pthread_cond_broadcast(&retriever->changed);
    pthread_mutex_unlock(&retriever->mutex);
}

/* ---- numbers of one process --------------------------------------------------------------------
 */

static uint64_t stamp_of(unsigned generation)
{
    return (uint64_t)generation << 32;
}

void retriever_stamp(const struct iovec *pieces, int count, unsigned generation)
{
    const struct fuse_out_header *out = pieces[0].iov_base;
    struct fuse_notify_retrieve_out *wanted = count == 2 ? pieces[1].iov_base : NULL;
    if (out->unique != 0 || out->error != FUSE_NOTIFY_RETRIEVE || !wanted ||
        pieces[1].iov_len != sizeof *wanted)
        return;
    wanted->notify_unique = (wanted->notify_unique & UINT32_MAX) | stamp_of(generation);
}

bool retriever_unstamp(void *request, unsigned generation)
{
    struct fuse_in_header *in = request;
    if (in->opcode != FUSE_NOTIFY_REPLY)
        return true;
    bool ours = (in->unique & ~(uint64_t)UINT32_MAX) == stamp_of(generation);
    in->unique &= UINT32_MAX;
    return ours;
}
