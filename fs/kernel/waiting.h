/* SPDX-License-Identifier: MIT
 *
 * The room where requests wait: for a directory that has to be looked at, for the engine to take a
 * file up. Loop threads bring a request here when it cannot be answered without I/O, and go on; a
 * thread of the room does what blocks, then answers.
 *
 * There are as many threads as there is to do, WAITING_THREADS at most; one that has nothing to do
 * for a while ends. Of jobs with the same key one runs at a time, in the order in which they came:
 * a directory whose storage hangs takes one thread, however many ask for it.
 *
 * A request is answered by who takes it (waiting_take), and by nobody else. That is the thread that
 * has done the work; or, when the request was interrupted and the work does not end within
 * WAITING_GRACE_MS, a thread that does only this, with EINTR (the grace is for programs that get
 * signals all the time, from a profiler say, which do not expect stat(2) to fail with that); or
 * waiting_close. What is done for a request that has been answered is done for nobody, and the job
 * ends without a word.
 *
 * The mutex of the room is a leaf, and not held while anything is answered. */
#ifndef FS_KERNEL_WAITING_H
#define FS_KERNEL_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#define WAITING_THREADS 64u
#define WAITING_JOBS 4096u /* that wait for a thread; one more is refused */
#define WAITING_GRACE_MS 500u

/* Keys of work that is about no node and no directory: all that has files looked up by somebody
 * else (look_up in filesystem.h), which is for one thread at a time; what commands ask
 * for; the source itself, when nobody waits for it; names that the kernel is to forget. */
#define WAITING_KEY_LOOK_UP (UINT64_C(1) << 62)
#define WAITING_KEY_CONTROL (WAITING_KEY_LOOK_UP + 1)
#define WAITING_KEY_ROOT (WAITING_KEY_LOOK_UP + 2)
#define WAITING_KEY_FORGET (WAITING_KEY_LOOK_UP + 3)

struct fuse_req;
struct waiting_room;

struct waiting_job {
    /* Does what blocks, then takes the request and answers it. */
    void (*work)(struct waiting_job *job);
    /* Frees the job, which nobody knows any more: the work is done, or was never begun. */
    void (*release)(struct waiting_job *job);
    uint64_t key;
    /* The room's: */
    struct fuse_req *request;
    struct waiting_job *next;
    int64_t interrupted_ms; /* 0: it was not */
    bool entering;
};

/* Starts the thread that answers who was interrupted. NULL when memory is short or there can be no
 * thread. */
struct waiting_room *waiting_room_new(void);
/* Takes a job, with a request to be answered or NULL. work, release and key are set by the caller;
 * the rest need not be. 0: the job is the room's; else it is the caller's still, and the request to
 * be answered by him: -EAGAIN: too many wait already; -ESHUTDOWN. Thread-safe, never blocks. */
int waiting_enter(struct waiting_room *room, struct waiting_job *job, struct fuse_req *request);
/* In its work: the request, which the caller now answers; NULL: there was none, or it was answered
 * while the work went on. Never blocks. */
struct fuse_req *waiting_take(struct waiting_room *room, struct waiting_job *job);
/* Whether waiting_close has been called: for long work without a request. */
bool waiting_closed(struct waiting_room *room);
/* Answers all that wait with ESHUTDOWN, takes no more, and waits for the work that goes on, at most
 * timeout_ms. 0; -ETIMEDOUT: a thread hangs, and the room cannot be freed. NULL is allowed. */
int waiting_close(struct waiting_room *room, unsigned timeout_ms);
/* After a waiting_close that gave 0. NULL is allowed. */
void waiting_room_free(struct waiting_room *room);

#endif
