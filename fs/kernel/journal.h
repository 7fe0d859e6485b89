/* SPDX-License-Identifier: MIT
 *
 * The journal of requests: those that were read from the kernel and not answered yet, in memory
 * that outlives the process (keep.h). The process that takes its place answers them; without that
 * whoever waits for one of them would wait for ever, on kernels that cannot be asked to send it
 * again (before Linux 6.9), and on others when it dies at the wrong moment.
 *
 * A request is read into a landing, one for each thread that reads, so that the kernel itself
 * writes it where it outlives us. It is then parked: copied to a block where it stays until it is
 * answered, and the landing is free for the next one. So at every instant from the return of
 * read(2) on it is in one of the two, for a moment in both.
 *
 *   landing   EMPTY (unique 0) -> read(2) fills it -> parked -> EMPTY
 *   block     FREE -> PARKED -> its reply was written -> FREE
 *
 * A block is filled before its state says PARKED, and that is said before the landing is emptied.
 * The reply is written before the block is freed: who dies between the two has his successor
 * answer once more, which the kernel refuses (ENOENT), and nobody is hurt.
 *
 * What needs no answer (FORGET, INTERRUPT, replies to notifications) is not parked: what is lost of
 * it is made up for (inode_table.h), or concerns the dead process alone.
 *
 * The successor takes all over that it finds, and does so again while the dead process still has
 * threads: one of them may come out of read(2), with a request in its landing, only when others
 * have been answered. So landings are in banks, one for each process in turn, and a successor
 * leaves those of the processes before it alone but for emptying them.
 *
 * Where the kernel can be asked to send again what it takes for read (FUSE_NOTIFY_RESEND), it is,
 * again and again while the dead process has threads. What comes so has bit 63 of its number set,
 * must be answered with that, and can be answered under its old number no more: nothing is lost by
 * that, since it comes through read(2) like any other.
 *
 * Poison. A request that makes the process crash would make each successor crash. So a block counts
 * how often it was begun by a successor; when that one has crashed as well (journal_crashed), the
 * next one answers EIO instead. A process that was killed has not crashed.
 *
 * Invariants: a number (unique) has at most one block; a block that is PARKED holds a whole request
 * that wants an answer; blocks of this process that are not PARKED are on its list of free ones.
 *
 * One mutex, a leaf, not held across a read or a write. When blocks run out, requests go on
 * without: then only sending again helps. */
#ifndef FS_KERNEL_JOURNAL_H
#define FS_KERNEL_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* What the area of the keep must have. */
size_t journal_area_bytes(void);

struct journal;

/* Over an area of journal_area_bytes, zeroed or as an earlier process has left it, which must stay
 * as long as the journal. generation: of this process, counted from 0: one more than that of the
 * process before. Requests of earlier ones are taken over. NULL when memory is short. */
struct journal *journal_new(void *area, unsigned generation);
/* NULL is allowed. What is parked stays in the area. */
void journal_free(struct journal *journal);

/* read(2) of a request from a descriptor of /dev/fuse. Blocks as that does. Thread-safe. */
ssize_t journal_read(struct journal *journal, int device, void *buffer, size_t length);
/* writev(2) of a reply or a notification. Thread-safe. A reply that the kernel does not take, for
 * any other reason than that nobody waits for it, is followed by EIO. */
ssize_t journal_write(struct journal *journal, int device, const struct iovec *pieces, int count);

/* ---- taking over -------------------------------------------------------------------------------
 */

#define JOURNAL_REQUEST_MAX 8192u

/* Parks what landed in earlier processes since it was asked last. Then hands out the next request
 * that was taken over and not begun yet, copied to `request`, of JOURNAL_REQUEST_MAX bytes: its
 * length, or 0 when there is none. It is begun by that. doomed: it is poison, and EIO is the only
 * answer. Thread-safe. */
size_t journal_next(struct journal *journal, void *request, bool *doomed);
/* How many requests are parked. Thread-safe. */
size_t journal_parked(struct journal *journal);
/* Has the kernel send again what it takes for read. false: it cannot. Thread-safe. */
bool journal_send_again(int device);

/* This process is crashing. Async-signal-safe. */
void journal_crashed(struct journal *journal);

#endif
