/* SPDX-License-Identifier: MIT
 *
 * Whether a source file is served. Every file has one gate, and whoever hands out, stores or
 * fetches bytes of it asks that.
 *
 *   state     what a read gets                       stores        its pages in the page cache
 *   OPEN      the bytes, as they come                go on         may be there
 *   CLOSED    nothing yet: it waits for a verdict    do not begin  are not there
 *   BLOCKED   an error, at once; gate_error says it  do not begin  are taken away, then are gone
 *
 * CLOSED is a file of which only the whole can be judged, on a mount that serves nothing before
 * (and one that is gathered from such files). BLOCKED is for a reason, and lasts until something
 * else is on disk. The pages that readers may still have are DUE first: a storer, which may wait
 * for readers, takes them away, and then they are GONE.
 *
 *   event             OPEN      CLOSED    BLOCKED                        who
 *   gate_init         (OPEN or CLOSED)                                   the start
 *   gate_open         -         OPEN      -                              who has the verdict
 *   gate_block        BLOCKED   BLOCKED   BLOCKED; the reason may be     who finds the fault
 *                     pages DUE pages DUE another one, see below
 *   gate_take_pages   -         -         pages DUE -> GOING             a storer
 *   gate_pages_gone   -         -         pages GOING -> GONE            the same
 *   gate_renew        -         -         OPEN or CLOSED; only with      the watcher, when another
 *                                         pages GONE                     content is to be served
 *
 * "-" cannot be: debug builds abort there, others leave the gate as it is.
 *
 * What is blocked once is not blocked again for what its bytes show (they are not served any more);
 * but what is found out about the file on disk is always the newest reason: it says what somebody
 * has to do about it.
 *
 * Not thread-safe: the owner of the file has a lock. Nothing blocks.
 */
#ifndef ENGINE_GATE_H
#define ENGINE_GATE_H

#include "digest/digest.h"
#include "unshard.h"

#include <stdbool.h>

enum gate_state { GATE_OPEN, GATE_CLOSED, GATE_BLOCKED };

enum gate_reason {
    GATE_SOUND, /* it is not blocked */
    /* What its bytes show. */
    GATE_MISMATCH, /* the whole does not match its digest */
    GATE_HEADER,   /* its header is not the one that views were planned from */
    /* What is found out about the file. */
    GATE_SHARD,      /* it is gathered from a file that is blocked */
    GATE_IMPOSSIBLE, /* whatever it holds: digests contradict each other, or it is not as long as
                      * it must be */
    GATE_CHANGED,    /* it is another one on disk; it begins anew when no reader gets two contents
                      * by that */
    GATE_GONE,       /* it is not in the directory that the source's path leads to now */
    GATE_UNUSABLE,   /* what is there now cannot be opened, or is too short */
    GATE_LAYOUT,     /* what is there now has other tensors, or at other places: only views that
                      * are planned anew can show it */
    GATE_REASONS
};

enum gate_pages { GATE_PAGES_OURS, GATE_PAGES_DUE, GATE_PAGES_GOING, GATE_PAGES_GONE };

/* What the content should be and what it is, for the status. */
struct mismatch {
    bool known;
    char algorithm[16];
    char expected[DIGEST_MAX_HEX], actual[DIGEST_MAX_HEX];
    const char *origin;
};

struct gate_cause;
/* Read through the functions below. All zero: OPEN. */
struct gate {
    enum gate_state state;
    enum gate_reason reason;
    enum gate_pages pages;
    struct gate_cause *cause; /* of a blocked one; NULL: there was no memory for it */
};

/* Before anything of the file is served. */
void gate_init(struct gate *gate, bool closed);
/* The verdict is good. */
void gate_open(struct gate *gate);
/* Nothing is served any more. *error and *mismatch (or NULL: none) are copied. True when it was not
 * blocked before: the caller ends what is under way. */
bool gate_block(struct gate *gate, enum gate_reason reason, const struct unshard_error *error,
                const struct mismatch *mismatch);
/* The caller takes the pages away, which are due. */
void gate_take_pages(struct gate *gate);
void gate_pages_gone(struct gate *gate);
/* Another content is served from now on: at once, or (closed) when it has been judged. */
void gate_renew(struct gate *gate, bool closed);
/* Lets go of what is kept of the cause. */
void gate_free(struct gate *gate);

static inline bool gate_is_open(const struct gate *gate)
{
    return gate->state == GATE_OPEN;
}

static inline bool gate_is_closed(const struct gate *gate)
{
    return gate->state == GATE_CLOSED;
}

static inline bool gate_is_blocked(const struct gate *gate)
{
    return gate->state == GATE_BLOCKED;
}

/* Blocked, and nothing is left to be cleared away: it may be renewed. */
static inline bool gate_is_clear(const struct gate *gate)
{
    return gate->pages == GATE_PAGES_GONE;
}

/* Blocked, and somebody is to take its pages away. */
static inline bool gate_pages_are_due(const struct gate *gate)
{
    return gate->pages == GATE_PAGES_DUE;
}

/* Why it is blocked; NULL when it is not. Valid until the next event. */
const struct unshard_error *gate_error(const struct gate *gate);
/* The mismatch for which it is blocked; `known` is false when it is for none. Valid likewise. */
const struct mismatch *gate_mismatch(const struct gate *gate);

#endif
