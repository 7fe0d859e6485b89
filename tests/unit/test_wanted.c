/* SPDX-License-Identifier: MIT
 *
 * Which chunks are wanted, against a model that keeps a line for each chunk. */
#include "engine/wanted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

enum { CHUNKS = 9000, ROUNDS = 200000, AT_ONCE = 50 };

struct line {
    bool wanted[WANTED_BY_COUNT];
    uint64_t at; /* 0: now */
};

struct model {
    struct line lines[CHUNKS];
    uint64_t rest, now;
    unsigned waiting;
};

static void model_wait(struct model *model, uint32_t index, uint64_t at)
{
    model->waiting -= model->lines[index].at != 0;
    model->waiting += at != 0;
    model->lines[index].at = at;
}

static uint32_t model_next(const struct model *model, enum wanted_by by, uint32_t from,
                           uint32_t end)
{
    while (from < end &&
           (model->rest != 0 || !model->lines[from].wanted[by] || model->lines[from].at != 0))
        from++;
    return from;
}

static void model_set(struct model *model, uint32_t index, bool readers, bool plan, uint64_t at)
{
    model->lines[index].wanted[WANTED_BY_READERS] = readers;
    model->lines[index].wanted[WANTED_BY_PLAN] = plan;
    model_wait(model, index, at);
}

static bool model_tick(struct model *model)
{
    bool due = model->rest != 0 && model->rest <= model->now;
    if (due)
        model->rest = 0;
    for (uint32_t i = 0; i < CHUNKS; i++)
        if (model->lines[i].at != 0 && model->lines[i].at <= model->now) {
            model_wait(model, i, 0);
            due = true;
        }
    return due;
}

/* Some neighbours at a time, so that whole words are taken. */
static void change(struct wanted *wanted, struct model *model)
{
    uint32_t first = (uint32_t)random() % CHUNKS, kind = (uint32_t)random() % 100;
    uint32_t last = first + (uint32_t)random() % 700;
    enum wanted_by by = (enum wanted_by)(random() % WANTED_BY_COUNT);
    for (uint32_t i = first; i < last && i < CHUNKS; i++) {
        bool plan = by == WANTED_BY_PLAN;
        if (kind < 60) {
            wanted_take(wanted, i);
            model_set(model, i, false, false, 0);
        } else {
            wanted_put(wanted, i, by);
            model_set(model, i, true, plan, 0);
        }
    }
    if (kind % 4 == 0 && model->waiting < AT_ONCE) {
        uint64_t at = model->now + 1 + (uint64_t)random() % 50;
        wanted_put_off(wanted, first, by, at);
        model_set(model, first, true, by == WANTED_BY_PLAN, at);
    }
    if (kind == 1) {
        uint64_t until = model->now + (uint64_t)random() % 10;
        wanted_rest(wanted, until);
        model->rest = until > model->rest ? until : model->rest;
    }
}

static void is_what_the_model_says(void **state)
{
    static struct model model;
    struct wanted wanted;
    (void)state;
    srandom(11);
    assert_int_equal(wanted_init(&wanted, CHUNKS), 0);
    for (uint32_t i = 0; i < CHUNKS; i++)
        model_set(&model, i, true, true, 0);
    for (unsigned round = 0; round < ROUNDS / 100; round++) {
        model.now++;
        change(&wanted, &model);
        if (random() % 3 == 0)
            assert_int_equal(wanted_tick(&wanted, model.now), model_tick(&model));
        assert_int_equal(wanted_waits(&wanted), model.waiting > 0 || model.rest != 0);
        for (unsigned k = 0; k < 100; k++) {
            enum wanted_by by = (enum wanted_by)(random() % WANTED_BY_COUNT);
            uint32_t from = (uint32_t)random() % CHUNKS;
            uint32_t end = from + (uint32_t)random() % (CHUNKS - from + 1);
            assert_int_equal(wanted_next(&wanted, by, from, end),
                             model_next(&model, by, from, end));
            assert_int_equal(wanted_has(&wanted, by, from), model.lines[from].wanted[by]);
        }
    }
    wanted_free(&wanted);
}

/* More than is put off one by one: nothing is lost, the file rests. */
static void much_that_fails_makes_the_file_rest(void **state)
{
    struct wanted wanted;
    (void)state;
    assert_int_equal(wanted_init(&wanted, CHUNKS), 0);
    for (uint32_t i = 0; i < 1000; i++)
        wanted_put_off(&wanted, i, WANTED_BY_PLAN, 100 + i);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, 0, CHUNKS), CHUNKS);
    assert_false(wanted_tick(&wanted, 99));
    assert_true(wanted_tick(&wanted, 2000));
    assert_false(wanted_waits(&wanted));
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, i, CHUNKS), i);
    for (uint32_t i = 0; i < 1000; i++)
        wanted_put_off(&wanted, i, WANTED_BY_READERS, UINT64_MAX);
    wanted_wake(&wanted);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_READERS, 0, CHUNKS), 0);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, 0, CHUNKS), 1000);
    wanted_free(&wanted);
}

static void the_last_chunks_of_a_huge_file(void **state)
{
    struct wanted wanted;
    uint32_t count = UINT32_MAX - 1;
    (void)state;
    assert_int_equal(wanted_init(&wanted, count), 0);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, count - 1, count), count - 1);
    wanted_take(&wanted, count - 1);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, count - 1, count), count);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, count - 100, count), count - 100);
    assert_int_equal(wanted_next(&wanted, WANTED_BY_PLAN, count, count), count);
    wanted_free(&wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_what_the_model_says),
        cmocka_unit_test(much_that_fails_makes_the_file_rest),
        cmocka_unit_test(the_last_chunks_of_a_huge_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
