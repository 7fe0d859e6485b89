/* SPDX-License-Identifier: MIT */
#include "engine/gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct gate_cause {
    struct unshard_error error;
    struct mismatch mismatch;
};

/* The events that are possible in some states only. */
enum event { OPENS, TAKES_PAGES, HAS_TAKEN_PAGES, RENEWS };
static const struct rule {
    const char *event;
    enum gate_state state;
    enum gate_pages pages;
} rules[] = {
    [OPENS] = {"gate_open", GATE_CLOSED, GATE_PAGES_OURS},
    [TAKES_PAGES] = {"gate_take_pages", GATE_BLOCKED, GATE_PAGES_DUE},
    [HAS_TAKEN_PAGES] = {"gate_pages_gone", GATE_BLOCKED, GATE_PAGES_GOING},
    [RENEWS] = {"gate_renew", GATE_BLOCKED, GATE_PAGES_GONE},
};

#ifdef UNSHARD_CHECK_INVARIANTS
static const char *const state_names[] = {"OPEN", "CLOSED", "BLOCKED"};
static const char *const reason_names[GATE_REASONS] = {
    "sound", "mismatch", "header", "shard", "impossible", "changed", "gone", "unusable", "layout"};

static void refuse(const struct gate *gate, const char *event)
{
    fprintf(stderr, "gate: %s cannot be in %s (%s), pages %d\n", event, state_names[gate->state],
            reason_names[gate->reason], (int)gate->pages);
    abort();
}

static void gate_check(const struct gate *gate)
{
    bool blocked = gate->state == GATE_BLOCKED;
    if (blocked != (gate->reason != GATE_SOUND) || blocked != (gate->pages != GATE_PAGES_OURS) ||
        (!blocked && gate->cause != NULL))
        refuse(gate, "what it says of itself");
}
#else
static void refuse(const struct gate *gate, const char *event)
{
    (void)gate, (void)event;
}

static void gate_check(const struct gate *gate)
{
    (void)gate;
}
#endif

static bool may_be(const struct gate *gate, enum event event)
{
    const struct rule *rule = &rules[event];
    bool may = gate->state == rule->state && gate->pages == rule->pages;
    if (!may)
        refuse(gate, rule->event);
    return may;
}

static void set(struct gate *gate, enum gate_state state, enum gate_reason reason,
                enum gate_pages pages)
{
    gate->state = state;
    gate->reason = reason;
    gate->pages = pages;
    if (state != GATE_BLOCKED)
        gate_free(gate);
    gate_check(gate);
}

void gate_init(struct gate *gate, bool closed)
{
    *gate = (struct gate){.state = closed ? GATE_CLOSED : GATE_OPEN};
}

void gate_open(struct gate *gate)
{
    if (may_be(gate, OPENS))
        set(gate, GATE_OPEN, GATE_SOUND, GATE_PAGES_OURS);
}

static bool is_of_bytes(enum gate_reason reason)
{
    return reason == GATE_MISMATCH || reason == GATE_HEADER;
}

bool gate_block(struct gate *gate, enum gate_reason reason, const struct unshard_error *error,
                const struct mismatch *mismatch)
{
    bool news = gate->state != GATE_BLOCKED;
    if (!news && is_of_bytes(reason))
        return false;
    if (gate->cause == NULL)
        gate->cause = malloc(sizeof *gate->cause);
    if (gate->cause != NULL) {
        gate->cause->error = *error;
        gate->cause->mismatch = mismatch != NULL ? *mismatch : (struct mismatch){0};
    }
    set(gate, GATE_BLOCKED, reason, news ? GATE_PAGES_DUE : gate->pages);
    return news;
}

void gate_take_pages(struct gate *gate)
{
    if (may_be(gate, TAKES_PAGES))
        set(gate, GATE_BLOCKED, gate->reason, GATE_PAGES_GOING);
}

void gate_pages_gone(struct gate *gate)
{
    if (may_be(gate, HAS_TAKEN_PAGES))
        set(gate, GATE_BLOCKED, gate->reason, GATE_PAGES_GONE);
}

void gate_renew(struct gate *gate, bool closed)
{
    if (may_be(gate, RENEWS))
        set(gate, closed ? GATE_CLOSED : GATE_OPEN, GATE_SOUND, GATE_PAGES_OURS);
}

void gate_free(struct gate *gate)
{
    free(gate->cause);
    gate->cause = NULL;
}

const struct unshard_error *gate_error(const struct gate *gate)
{
    static const struct unshard_error forgotten = {.code = "no-memory",
                                                   .errno_value = ENOMEM,
                                                   .offset = UNSHARD_NO_OFFSET,
                                                   .message = "out of memory"};
    if (gate->state != GATE_BLOCKED)
        return NULL;
    return gate->cause != NULL ? &gate->cause->error : &forgotten;
}

const struct mismatch *gate_mismatch(const struct gate *gate)
{
    static const struct mismatch none = {.known = false};
    return gate->cause != NULL ? &gate->cause->mismatch : &none;
}
