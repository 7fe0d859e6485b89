/* SPDX-License-Identifier: MIT
 *
 * What the processes of one mount share, in memory that outlives each of them (the area of the
 * keep, see lib/keep/keep.h): whose turn it is, who has died and of what.
 *
 * A mount is served by one daemon after the other, counted from 0: its generation. While one lives
 * its main thread holds the robust mutex of its generation. The kernel lets go of that as soon as
 * the thread ends, also when other threads of the process hang in the kernel and neither waitpid
 * nor a pidfd tells of its end: whoever waits for the mutex has it then, and knows.
 *
 * Invariants: `generation` only grows. The mutex of a generation is made by its daemon, before it
 * says that it lives (succession.h), and waited for by the supervisor after that alone. Of what is
 * counted here the supervisor writes all but `crash`, which is the daemon's.
 *
 * Everything may have been written by a process that ran wild: what is read is bounded. */
#ifndef FS_MOUNT_LIFE_H
#define FS_MOUNT_LIFE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "unshard.h"

/* Daemons of which something may be left at once: see journal.h. */
#define LIFE_GENERATIONS 4u

/* How a daemon ended whom another one followed. */
enum life_end {
    LIFE_RUNS = 0,
    LIFE_KILLED,   /* or ended without a word */
    LIFE_CRASHED,  /* by a signal of its own making: life_crash */
    LIFE_FAILED,   /* it could not take over */
    LIFE_UPGRADED, /* it was asked to let another one take over */
};

struct life {
    _Atomic uint32_t generation; /* of the daemon that serves, or is to */
    _Atomic uint32_t
        served; /* whether any of them has: before that there is no mount to go on with */
    _Atomic uint32_t restarts;
    _Atomic uint32_t last_end;    /* enum life_end: of the one before; LIFE_RUNS: there was none */
    _Atomic uint32_t last_signal; /* of LIFE_CRASHED */
    _Atomic int64_t last_ns;      /* when, of CLOCK_REALTIME */
    _Atomic uint32_t crash[LIFE_GENERATIONS]; /* the signal of which a daemon dies; 0: of none */
    pthread_mutex_t alive[LIFE_GENERATIONS];
};

/* The area of the keep: this, and behind it that of the journal. */
size_t life_area_bytes(void);
struct life *life_of(struct unshard_keep *keep);
void *life_journal_area(struct unshard_keep *keep);

/* In the daemon of a generation, by its main thread: it lives from here on. 0 or a negative errno.
 */
int life_begin(struct life *life, unsigned generation);
/* Blocks until the daemon of a generation has died, which has begun. */
void life_wait_for_end(struct life *life, unsigned generation);
/* Whether it has, without blocking, or has never begun. */
bool life_has_ended(struct life *life, unsigned generation);
/* Has a signal that ends the process noted before it does, of this daemon, and passed on to
 * `crashed`, which must be async-signal-safe. Once. */
void life_note_crashes(struct life *life, unsigned generation, void (*crashed)(void *context),
                       void *context);
/* The signal of which a daemon has died, as far as it could tell; 0: none. */
int life_crash(const struct life *life, unsigned generation);

/* For a person and for a machine: "killed", "crashed"... */
const char *life_end_name(enum life_end end);

#endif
