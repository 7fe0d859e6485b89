/* SPDX-License-Identifier: MIT
 *
 * A thread that stores may wait, in the kernel and for ever, for a page that a read has locked
 * whose answer can only come from this process. When the process is killed meanwhile that thread
 * does not end, and as long as it has the connection's descriptor nobody is told that whoever
 * should answer is gone. The supervisor has another daemon answer (fs/mount/supervisor.h); but it
 * may have been killed as well.
 *
 * So such a thread has a table of descriptors of its own, and in it nothing of the connection but a
 * clone, over which it stores. When the rest of the process has ended the kernel ends all that was
 * read over the descriptor proper, by which the page is unlocked, the thread wakes up and ends, the
 * clone is closed, and the connection with it. */
#ifndef FS_KERNEL_APART_H
#define FS_KERNEL_APART_H

#include <stdbool.h>

/* Of the calling thread, once: it goes apart, if it can. It must not open, close or use any other
 * descriptor that it shares with others from then on. device: of the connection. */
void apart_go(int device);
/* The clone; `device` for a thread that has not gone apart. */
int apart_device(int device);
/* Whether the calling thread has gone apart. Async-signal-safe. */
bool apart_is(void);

#endif
