/* SPDX-License-Identifier: MIT
 *
 * The daemon's side of what supervisor.h and succession.h tell: it says where it is, hears what it
 * is to do, and replaces a supervisor that has died.
 *
 * One thread listens. The mutex protects the supervisor and the socket to it, and is a leaf: it is
 * held while a message is sent, which does not block, and while a supervisor is started. */
#ifndef FS_MOUNT_SUPERVISED_H
#define FS_MOUNT_SUPERVISED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/mount/life.h"
#include "fs/mount/succession.h"
#include "unshard.h"

struct supervised {
    struct unshard_keep *keep; /* the caller's */
    struct life *life;
    uint32_t generation;
    int handed[HANDED_COUNT]; /* the caller's */
    /* Called by the listening thread. */
    void (*ending)(void *context, unsigned signals);
    void (*hangup)(void *context);
    void (*yield)(void *context); /* another daemon is to follow: does not return */
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Of mutex: */
    int talk, process; /* process: a pidfd; -1: none */
    bool known, serving, leaving, let_go, stopping;
    pthread_t listener;
    bool listener_runs;
    int wake; /* an eventfd: stopping */
};

/* talk: of succession_pair, where the other end waits for a HELLO, and the process of that; or
 * negative: a supervisor is started. handed: the device, the keep and the source, the caller's for
 * as long as this is used. Says HELLO, waits until that was heard, and says that the calling
 * thread, the main one, lives. 0 or a negative errno with *error. */
int supervised_begin(struct supervised *supervised, struct unshard_keep *keep, int talk,
                     pid_t supervisor, const int handed[HANDED_COUNT], struct unshard_error *error);
/* The same in a daemon that was started by a supervisor, with what that has handed it: it says at
 * once that it lives, by the main thread. */
int supervised_continue(struct supervised *supervised, struct unshard_keep *keep,
                        const struct succession *succession, struct unshard_error *error);
/* From here on this process is killed when its supervisor ends, which a service manager sees and
 * has the mount go on (kept_mount.h): of what that kills nothing comes back. By the main thread. */
void supervised_bind(struct supervised *supervised);
/* Starts to listen. 0 or a negative errno. */
int supervised_listen(struct supervised *supervised);
/* The mount works. Any thread. */
void supervised_serving(struct supervised *supervised);
/* Another daemon, of that program, is to follow this one: `yield` is called soon, unless the
 * supervisor ends just now. 0, or a negative errno: nobody has heard it. Any thread. */
int supervised_upgrade(struct supervised *supervised, int program);
/* This daemon cannot take over; hopeless: nor could another one. Before it ends. */
void supervised_failing(struct supervised *supervised, bool hopeless);
/* This process is about to end by a signal. Async-signal-safe. */
void supervised_crashing(const struct supervised *supervised);
/* The connection is about to be ended: afterwards nobody else holds its descriptor. Blocks for some
 * seconds at most. Does nothing when there was no supervised_begin. */
void supervised_leave(struct supervised *supervised);
/* The connection has ended and the mount is gone, or this never was. Ends the thread and frees what
 * this has. The supervisor ends after this process, without touching the mount. */
void supervised_stop(struct supervised *supervised);

#endif
