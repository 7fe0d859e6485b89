/* SPDX-License-Identifier: MIT
 *
 * How supervisor and daemon of a mount talk, and what one hands on to the other.
 *
 * The supervisor (supervisor.h) holds what must not end with a daemon: the descriptor of /dev/fuse,
 * the keep, and a descriptor of the source. The first daemon makes all three and hands them over;
 * each later one is started by the supervisor with them. Daemon and supervisor watch each other:
 *
 *   daemon       HELLO(generation; device, keep, source)   -> KNOWN
 *                ALIVE      its mutex is held: from here on that tells of its end (life.h)
 *                SERVING    the mount works
 *                LEAVING    it is about to end the connection   -> LET_GO: nobody else holds it
 *                DONE       the connection has ended and the mount is gone: nothing is left to do
 *                FAILING(number)   it could not take over; 1: nor can any other of this program
 *                CRASHING   it is about to: that it has ended may not be told as long as its memory
 * is written out, which waits for threads that hang UPGRADE(program)  let that take over, which has
 * shown that it can (upgrade.h)
 *                                                               -> YIELD: end, as if killed
 *   supervisor   ENDING(number)   so many signals came that end the mount
 *                HANGUP           one that has the log opened again
 *
 * A supervisor that has died is replaced by its daemon, with a HELLO and all that follows from it.
 * Each pair has a socket of its own: what an earlier daemon says is heard by nobody.
 *
 * After an UPGRADE the daemon is of another version than the supervisor, until that has heard
 * SERVING and become that version, too. So the words, what follows them and the environment belong
 * to what KEEP_LAYOUT counts the versions of (lib/keep/keep.h). */
#ifndef FS_MOUNT_SUCCESSION_H
#define FS_MOUNT_SUCCESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum succession_word {
    WORD_HELLO = 1,
    WORD_KNOWN,
    WORD_ALIVE,
    WORD_SERVING,
    WORD_LEAVING,
    WORD_LET_GO,
    WORD_DONE,
    WORD_FAILING,
    WORD_ENDING,
    WORD_HANGUP,
    WORD_CRASHING,
    WORD_UPGRADE,
    WORD_YIELD,
};

struct succession_message {
    uint32_t word; /* enum succession_word */
    uint32_t number;
};

enum { HANDED_DEVICE, HANDED_KEEP, HANDED_SOURCE, HANDED_COUNT };

/* A pair of ends that are closed on exec. 0 or a negative errno. */
int succession_pair(int ends[2]);
/* 0 or a negative errno. Never blocks: who does not listen is lost. */
int succession_say(int talk, enum succession_word word, uint32_t number);
/* With `count` descriptors, at most HANDED_COUNT, which stay the caller's. */
int succession_hand(int talk, enum succession_word word, uint32_t number, const int *handed,
                    unsigned count);
/* The next message. handed: those that came with it, the caller's; -1 for those that did not. 0;
 * -EPIPE: the other end is gone, or says what makes no sense. Blocks for at most timeout_ms
 * (-ETIMEDOUT); negative: for ever. */
int succession_hear(int talk, struct succession_message *out, int handed[HANDED_COUNT],
                    int timeout_ms);

/* ---- in the environment of a process that is started ------------------------------------------
 */

#define SUCCESSION_OLD 4u /* daemons that may not be quite gone */

enum succession_role {
    ROLE_NONE,
    ROLE_DAEMON,     /* it goes on with a mount */
    ROLE_REHEARSAL,  /* it finds out whether it could, and says so (upgrade.h) */
    ROLE_SUPERVISOR, /* it watches over the daemon that has started it, and hears the rest from that
                      */
    ROLE_UPGRADED,   /* the same process as before, by another program */
};

struct succession {
    enum succession_role role;
    int talk;
    int handed[HANDED_COUNT]; /* -1: none */
    uint32_t generation;
    int old[SUCCESSION_OLD]; /* pidfds of earlier daemons; -1: none */
    pid_t daemon;            /* whom a supervisor watches over */
    bool foreground;
};

#define SUCCESSION_VARIABLE 200
/* The descriptors among them, at most. */
#define SUCCESSION_DESCRIPTORS (1 + HANDED_COUNT + SUCCESSION_OLD)

/* "NAME=value" for the environment. Descriptors that are none must be -1. */
void succession_write(const struct succession *succession, char out[SUCCESSION_VARIABLE]);
/* Those that are some. How many. */
size_t succession_descriptors(const struct succession *succession, int out[SUCCESSION_DESCRIPTORS]);
/* What this process was started as. */
enum succession_role succession_role(void);
/* Of this process; the variable is taken out of the environment, and the descriptors are closed on
 * exec. false: it was started as nothing of the kind. Single-threaded. */
bool succession_take(struct succession *out);
/* With no descriptor at all. */
struct succession succession_none(enum succession_role role);

#endif
