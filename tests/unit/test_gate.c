/* SPDX-License-Identifier: MIT
 *
 * The gate of a file, against a model that is a table; and what it must refuse. */
#include "engine/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 200000 };

enum event { OPENS, IS_BLOCKED, TAKES_PAGES, PAGES_GONE, RENEWED_OPEN, RENEWED_CLOSED, EVENTS };

/* State and pages in one word, as the table in gate.h has them. */
enum line { OPEN, CLOSED, BLOCKED_DUE, BLOCKED_GOING, BLOCKED_GONE, LINES, NO = LINES };

static const enum line table[LINES][EVENTS] = {
    /* gate_open, gate_block, gate_take_pages, gate_pages_gone, gate_renew as OPEN and as CLOSED */
    [OPEN] = {NO, BLOCKED_DUE, NO, NO, NO, NO},
    [CLOSED] = {OPEN, BLOCKED_DUE, NO, NO, NO, NO},
    [BLOCKED_DUE] = {NO, BLOCKED_DUE, BLOCKED_GOING, NO, NO, NO},
    [BLOCKED_GOING] = {NO, BLOCKED_GOING, NO, BLOCKED_GONE, NO, NO},
    [BLOCKED_GONE] = {NO, BLOCKED_GONE, NO, NO, OPEN, CLOSED},
};

struct model {
    enum line line;
    enum gate_reason reason;
    unsigned error; /* its number */
    bool mismatch;
};

/* Errors and mismatches are told apart by a number. */
static void block(struct gate *gate, struct model *model, enum gate_reason reason, unsigned number)
{
    struct unshard_error error = {.code = "test"};
    struct mismatch mismatch = {.known = true};
    bool known = number % 2 == 0, was_blocked = model->line >= BLOCKED_DUE;
    snprintf(error.message, sizeof error.message, "%u", number);
    snprintf(mismatch.actual, sizeof mismatch.actual, "%u", number);
    assert_int_equal(gate_block(gate, reason, &error, known ? &mismatch : NULL), !was_blocked);
    bool of_bytes = reason == GATE_MISMATCH || reason == GATE_HEADER;
    if (was_blocked && of_bytes)
        return;
    model->reason = reason;
    model->error = number;
    model->mismatch = known;
}

static void apply(struct gate *gate, struct model *model, enum event event, unsigned number)
{
    if (event == OPENS)
        gate_open(gate);
    else if (event == IS_BLOCKED)
        block(gate, model, (enum gate_reason)(GATE_SOUND + 1 + number / 2 % (GATE_REASONS - 1)),
              number);
    else if (event == TAKES_PAGES)
        gate_take_pages(gate);
    else if (event == PAGES_GONE)
        gate_pages_gone(gate);
    else
        gate_renew(gate, event == RENEWED_CLOSED);
}

static void compare(const struct gate *gate, const struct model *model)
{
    char number[16];
    bool blocked = model->line >= BLOCKED_DUE;
    assert_int_equal(gate_is_open(gate), model->line == OPEN);
    assert_int_equal(gate_is_closed(gate), model->line == CLOSED);
    assert_int_equal(gate_is_blocked(gate), blocked);
    assert_int_equal(gate_pages_are_due(gate), model->line == BLOCKED_DUE);
    assert_int_equal(gate_is_clear(gate), model->line == BLOCKED_GONE);
    assert_int_equal(gate->reason, blocked ? model->reason : GATE_SOUND);
    assert_int_equal(gate_error(gate) != NULL, blocked);
    assert_int_equal(gate_mismatch(gate)->known, blocked && model->mismatch);
    snprintf(number, sizeof number, "%u", model->error);
    if (blocked)
        assert_string_equal(gate_error(gate)->message, number);
    if (blocked && model->mismatch)
        assert_string_equal(gate_mismatch(gate)->actual, number);
}

static void is_what_the_table_says(void **state)
{
    struct model model = {.line = CLOSED};
    struct gate gate;
    unsigned visits[LINES][EVENTS] = {{0}};
    (void)state;
    srandom(5);
    gate_init(&gate, true);
    compare(&gate, &model);
    for (unsigned round = 0; round < ROUNDS; round++) {
        enum event event = (enum event)(random() % EVENTS);
        enum line next = table[model.line][event];
        if (next == NO)
            continue;
        visits[model.line][event]++;
        apply(&gate, &model, event, (unsigned)random() % 1000);
        model.line = next;
        compare(&gate, &model);
    }
    for (int line = 0; line < LINES; line++)
        for (int event = 0; event < EVENTS; event++)
            assert_int_equal(visits[line][event] > 0, table[line][event] != NO);
    gate_free(&gate);
}

static void bring_to(struct gate *gate, enum line line)
{
    struct unshard_error error = {.code = "test"};
    gate_init(gate, line == CLOSED);
    if (line >= BLOCKED_DUE)
        gate_block(gate, GATE_CHANGED, &error, NULL);
    if (line >= BLOCKED_GOING)
        gate_take_pages(gate);
    if (line >= BLOCKED_GONE)
        gate_pages_gone(gate);
}

#ifdef UNSHARD_CHECK_INVARIANTS
/* In a child: whether it has ended by abort. */
static bool aborts(enum line line, enum event event)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct gate gate;
        struct model model = {.line = line};
        signal(SIGABRT, SIG_DFL);
        assert_non_null(freopen("/dev/null", "we", stderr));
        bring_to(&gate, line);
        apply(&gate, &model, event, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void what_cannot_be_aborts(void **state)
{
    (void)state;
    for (int line = 0; line < LINES; line++)
        for (int event = 0; event < EVENTS; event++)
            assert_int_equal(aborts((enum line)line, (enum event)event), table[line][event] == NO);
}
#else
static void what_cannot_be_changes_nothing(void **state)
{
    (void)state;
    for (int line = 0; line < LINES; line++)
        for (int event = 0; event < EVENTS; event++) {
            struct gate gate, before;
            struct model model = {.line = (enum line)line};
            if (table[line][event] != NO)
                continue;
            bring_to(&gate, (enum line)line);
            before = gate;
            apply(&gate, &model, (enum event)event, 0);
            assert_memory_equal(&gate, &before, sizeof gate);
            gate_free(&gate);
        }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_what_the_table_says),
#ifdef UNSHARD_CHECK_INVARIANTS
        cmocka_unit_test(what_cannot_be_aborts),
#else
        cmocka_unit_test(what_cannot_be_changes_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
