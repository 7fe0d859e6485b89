/* SPDX-License-Identifier: MIT
 * Ending a mount without a wedge: stores first, while reads are still answered; then the loop. */
#ifndef FS_MOUNT_SHUTDOWN_H
#define FS_MOUNT_SHUTDOWN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fs/kernel/filesystem.h"

struct shutdown {
    struct filesystem *filesystem;
    const char *mountpoint;
    int abort_fd;  /* -1: no fusectl */
    bool terminal; /* a hangup of it ends the mount */
    bool lasting;  /* no signal of others ends it, set after shutdown_init */
    pthread_t main_thread, signal_thread;
    bool signal_thread_runs;
    atomic_bool begun; /* a signal has come */
    atomic_bool asked; /* by shutdown_request */
    atomic_uint told;  /* signals that the supervisor has been sent */
    unsigned came;     /* ... and this process; of the signal thread */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool loop_left; /* protected by mutex */
    bool quiesced;  /* written by the signal thread, read after it was joined */
};

/* Blocks the signals that this module handles, in this thread and those it will create. */
void shutdown_block_signals(void);
/* The process has a terminal, with which it lives and dies when it stays in the foreground. */
bool shutdown_has_terminal(void);
/* mountpoint is not copied; abort_fd is of mountpoint_open_abort, or negative. terminal: there was
 * one at the start, and the mount ends with it. */
void shutdown_init(struct shutdown *shutdown, struct filesystem *filesystem, const char *mountpoint,
                   int abort_fd, bool terminal);
/* Starts the thread that waits for SIGTERM, SIGINT or a hangup and then drains the stores and ends
 * the loop; SIGHUP without one opens the log again. A second signal, or stores that do not end,
 * aborts the connection. The calling thread must be the one that runs session_loop. 0 or a negative
 * errno. */
int shutdown_start(struct shutdown *shutdown);
/* As if a signal had come. Any thread. */
void shutdown_request(struct shutdown *shutdown);
/* So many signals that end the mount were sent to the process that was started. Those to the whole
 * group came here as well, and count once. Any thread. */
void shutdown_told(struct shutdown *shutdown, unsigned signals);
/* Ends the process, for another one that goes on with the mount: when running stores have ended,
 * or do not soon. */
_Noreturn void shutdown_yield(struct shutdown *shutdown);
/* A SIGHUP was sent to it. Any thread. */
void shutdown_hang_up(struct shutdown *shutdown);
/* After the loop: ends the signal thread and whatever stores are left. */
void shutdown_loop_left(struct shutdown *shutdown);
/* Stops the engine and what uses it, and unmounts. false: something that was asked of the source
 * does not return, so that not all could be freed and the process has to end with _exit. */
bool shutdown_finish(struct shutdown *shutdown);
/* Frees what is left, when no thread will call shutdown_request any more. */
void shutdown_release(struct shutdown *shutdown);

#endif
