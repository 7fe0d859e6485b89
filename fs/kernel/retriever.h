/* SPDX-License-Identifier: MIT
 *
 * Takes bytes of a view back out of the kernel's page cache, for readers with O_DIRECT, who see
 * nothing of it: what was stored need not be read from storage again.
 *
 * The kernel answers a notification with a request of its own, which a loop thread gets
 * (retriever_answer). Who waits for it has a ticket; an answer that comes when nobody waits any
 * more finds none.
 */
#ifndef FS_KERNEL_RETRIEVER_H
#define FS_KERNEL_RETRIEVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct filesystem;
struct fuse_bufvec;
struct retriever;

/* NULL when memory is short. */
struct retriever *retriever_new(void);
/* Nobody may be waiting any more. NULL is allowed. */
void retriever_free(struct retriever *retriever);

/* Fills out with [offset, offset + size) of the view as its page cache has it, which may be of a
 * page that is only being filled: the caller checks it. Thread-safe, but never for a loop thread:
 * waits for one, for a third of a second at most. 0; -ENODATA: not all of it is there; -ETIMEDOUT,
 * or another negative errno of the kernel. */
int retriever_take(struct filesystem *filesystem, uint32_t view, uint64_t offset, void *out,
                   size_t size);

/* The kernel's answer to the ticket with this number: bytes, perhaps fewer than were asked for. For
 * loop threads; never blocks. */
void retriever_answer(struct retriever *retriever, uint64_t ticket, struct fuse_bufvec *bytes);
/* libfuse counts what it asks the kernel for from 1 in each process, and an answer may come when
 * the process that has asked is dead. So its number is made the process's own: in a message that is
 * about to be written, of any kind... */
void retriever_stamp(const struct iovec *pieces, int count, unsigned generation);
/* ... and taken off again in a request that was read. false: it is an answer to an earlier process,
 * and concerns nobody. Both are pure. */
bool retriever_unstamp(void *request, unsigned generation);

#endif
