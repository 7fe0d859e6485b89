/* SPDX-License-Identifier: MIT
 *
 * What the two halves of the supervisor share: supervisor.c hears and decides, successor.c has one
 * daemon follow the other. Nobody else includes this. */
#ifndef FS_MOUNT_SUPERVISION_H
#define FS_MOUNT_SUPERVISION_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mount/life.h"
#include "fs/mount/start.h"
#include "fs/mount/succession.h"

#define SUPERVISOR_PROGRAM "/proc/self/exe"
#define SUPERVISOR_MOST_FAILURES 3u

enum supervisor_state { WAITING, WATCHING, LEAVING, REFUSING };

struct supervisor {
    enum supervisor_state state;
    int talk; /* to the daemon; -1: it has closed it */
    int signals;
    int ends[2];     /* a pipe of generations: whose mutex was let go of */
    bool foreground; /* somebody waits for this process, and sends signals to it */
    bool keeps;      /* a service manager keeps what it is left: see kept_mount.h */
    pid_t daemon;
    int process; /* its pidfd; -1: it is gone */
    int handed[HANDED_COUNT];
    struct unshard_keep *keep;
    struct life *life;
    struct start start;
    int abort_fd;
    uint32_t generation;
    int program; /* which the next daemon is to be, and then this process; -1: it stays as it is */
    bool alive, serving, crashing, failed, refuses, done, stopping;
    int old[SUCCESSION_OLD]; /* pidfds of daemons that have died, and may not be gone */
    int64_t failures[SUPERVISOR_MOST_FAILURES]; /* when; the latest first */
    unsigned unserved;                          /* that died in a row and had not served */
    uint32_t endings;                           /* signals that end the mount */
    int status;
};

static inline int supervision_pidfd(pid_t process)
{
    return (int)syscall(SYS_pidfd_open, process, 0);
}

/* Its threads are all gone. */
static inline bool supervision_is_gone(int process)
{
    struct pollfd entry = {.fd = process, .events = POLLIN};
    return process < 0 || poll(&entry, 1, 0) > 0;
}

static inline void supervision_close(int *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (descriptors[i] >= 0)
            close(descriptors[i]);
        descriptors[i] = -1;
    }
}

/* ---- successor.c -------------------------------------------------------------------------------
 */

/* Has the pipe `ends` tell when the daemon has died, whose mutex is held. */
void successor_watch(struct supervisor *supervisor);
/* How it ended, when it is a child that has: false: it is none, or has not. */
bool successor_reap(struct supervisor *supervisor, siginfo_t *info);
/* Of daemons of before: those whose threads are all gone. */
void successor_forget_gone(struct supervisor *supervisor);
/* The daemon is one of before. false: there are too many of them that are not quite gone. */
bool successor_make_old(struct supervisor *supervisor);
/* Of what it died, from what was reaped; number: the signal, of LIFE_CRASHED. */
enum life_end successor_end_of(const struct supervisor *supervisor, bool reaped,
                               const siginfo_t *info, int *number);
/* For the status. */
void successor_note_end(struct supervisor *supervisor, enum life_end end, int number);
/* Counts the end. Whether there were too many of a kind that the next one would meet, too. */
bool successor_too_many(struct supervisor *supervisor, enum life_end end);
/* 0 or a negative errno. */
int successor_start(struct supervisor *supervisor);
/* One that was to be the next program and has not served is not tried again. 0 or a negative errno.
 */
int successor_start_next(struct supervisor *supervisor, bool served);
/* This process becomes the program that its daemon is. Comes back when that fails: then it stays
 * what it is. */
void successor_become_program(struct supervisor *supervisor);

#endif
