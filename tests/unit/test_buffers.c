/* SPDX-License-Identifier: MIT
 *
 * Buffers, taken, given back and kept at random: each is in one place at a time, and kept ones go
 * before a read has none. */
#include "engine/buffers.h"

#include "property/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { EACH = 4096, COUNT = 40, ROUNDS = 100000, FILES = 3 };

struct model {
    char *out[COUNT];
    size_t out_count;
    uint32_t next_kept;
};

static void take(struct buffers *buffers, struct model *model)
{
    if (buffers->free_count == 0)
        return;
    char *buffer = buffers_take(buffers);
    assert_true(buffer >= buffers->memory && (size_t)(buffer - buffers->memory) % EACH == 0 &&
                (size_t)(buffer - buffers->memory) / EACH < buffers->count);
    for (size_t i = 0; i < model->out_count; i++)
        assert_ptr_not_equal(model->out[i], buffer);
    model->out[model->out_count++] = buffer;
}

static char *put_down(struct model *model, struct random_state *random)
{
    size_t at = (size_t)random_below(random, model->out_count);
    char *buffer = model->out[at];
    model->out[at] = model->out[--model->out_count];
    return buffer;
}

static void keep(struct buffers *buffers, struct model *model, struct random_state *random)
{
    struct kept_chunk chunk = {.file = model->next_kept % FILES,
                               .index = model->next_kept++,
                               .since_ns = model->next_kept,
                               .buffer = put_down(model, random)};
    buffers_keep(buffers, &chunk);
    assert_true(kept_has(&buffers->kept, chunk.file, chunk.index));
    assert_true(buffers->kept.count <= buffers->kept.limit);
}

static void forget(struct buffers *buffers, struct random_state *random)
{
    uint32_t file = (uint32_t)random_below(random, FILES);
    size_t others = 0;
    for (size_t i = 0; i < buffers->kept.count; i++)
        others += buffers->kept.chunks[i].file != file;
    buffers_forget(buffers, file);
    assert_int_equal(buffers->kept.count, others);
    for (size_t i = 0; i < others; i++)
        assert_int_not_equal(buffers->kept.chunks[i].file, file);
}

static void each_is_in_one_place(void **state)
{
    (void)state;
    struct random_state random = {random_seed()};
    struct buffers buffers;
    struct model model = {0};
    assert_int_equal(buffers_init(&buffers, COUNT * EACH, EACH, 0), 0);
    assert_int_equal(buffers.count, COUNT);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t what = random_below(&random, 11);
        if (what < 5)
            take(&buffers, &model);
        else if (model.out_count > 0 && what < 8)
            buffers_give(&buffers, put_down(&model, &random));
        else if (model.out_count > 0 && what == 8)
            keep(&buffers, &model, &random);
        else if (what == 10)
            forget(&buffers, &random);
        else
            buffers_reclaim(&buffers, buffers.reserve);
        assert_int_equal(buffers.free_count + buffers.kept.count + model.out_count, COUNT);
        if (what == 9)
            assert_true(buffers.free_count > buffers.reserve || buffers.kept.count == 0);
        for (size_t others = 0; others < 3; others++)
            assert_int_equal(buffers_may_fetch(&buffers, others),
                             COUNT - model.out_count > buffers.reserve + others);
    }
    buffers_destroy(&buffers);
}

static void there_are_enough_to_go_on(void **state)
{
    (void)state;
    struct buffers buffers;
    assert_int_equal(buffers_init(&buffers, 0, EACH, 0), 0);
    assert_int_equal(buffers.count, LEAST_BUFFERS);
    assert_in_range(buffers.reserve, 2, LEAST_BUFFERS - 2);
    assert_true(buffers_for_stores(&buffers) + buffers.reserve <= buffers.count);
    buffers_destroy(&buffers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_in_one_place),
        cmocka_unit_test(there_are_enough_to_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
