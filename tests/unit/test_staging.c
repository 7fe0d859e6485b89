/* SPDX-License-Identifier: MIT
 *
 * Chunks that are staged, taken and forgotten at random: what comes back is what was put there,
 * every buffer is in one place, and the memory that is told is the memory that is held. */
#include "engine/staging.h"

#include "property/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { EACH = 16384, COUNT = 20, LOANS = 30, FILES = 4, CHUNKS = 20, ROUNDS = 100000 };

/* The last one ends with a chunk that is copied, the first one is nothing else. */
static const uint64_t sizes[FILES] = {300, CHUNKS *EACH, 7 * EACH + EACH / 2, 11 * EACH + 5};

struct model {
    struct buffers buffers;
    struct staging staging;
    bool staged[FILES][CHUNKS];
    char stamps[FILES][CHUNKS];
};

static uint64_t length_of(uint32_t file, uint32_t index)
{
    uint64_t rest = sizes[file] - (uint64_t)index * EACH;
    return rest < EACH ? rest : EACH;
}

static uint32_t count_of(uint32_t file)
{
    return (uint32_t)((sizes[file] + EACH - 1) / EACH);
}

static uint64_t memory_of(uint32_t file, uint32_t index)
{
    return length_of(file, index) <= EACH / 4 ? length_of(file, index) : EACH;
}

static void put(struct model *model, uint32_t file, uint32_t index, char stamp)
{
    char *buffer = buffers_take(&model->buffers);
    memset(buffer, stamp, length_of(file, index));
    bool put = staging_put(&model->staging, file, sizes[file], index, buffer);
    bool lent = memory_of(file, index) == EACH;
    size_t before = model->staging.bytes / EACH;
    if (!put) {
        assert_true(lent && before >= LOANS);
        buffers_give(&model->buffers, buffer);
        return;
    }
    model->staged[file][index] = true;
    model->stamps[file][index] = stamp;
}

static void take(struct model *model, uint32_t file, uint32_t index)
{
    char *buffer = staging_take(&model->staging, file, index);
    for (uint64_t at = 0; at < length_of(file, index); at++)
        assert_int_equal(buffer[at], model->stamps[file][index]);
    model->staged[file][index] = false;
    buffers_give(&model->buffers, buffer);
}

static void forget(struct model *model, uint32_t file)
{
    staging_forget(&model->staging, file);
    memset(model->staged[file], 0, sizeof model->staged[file]);
}

/* As the housekeeper does. */
static void give_memory_back(struct model *model)
{
    for (char *buffer; (buffer = buffers_take_unused(&model->buffers)) != NULL;) {
        memset(buffer, 0, EACH);
        buffers_put_empty(&model->buffers, buffer);
    }
    buffers_begin_count(&model->buffers);
}

static void check(const struct model *model)
{
    const struct buffers *buffers = &model->buffers;
    uint64_t bytes = 0;
    size_t lent = 0;
    for (uint32_t file = 0; file < FILES; file++)
        for (uint32_t index = 0; index < count_of(file); index++) {
            bool staged = model->staged[file][index];
            assert_int_equal(staging_has(&model->staging, file, index), staged);
            bytes += staged ? memory_of(file, index) : 0;
            lent += staged && memory_of(file, index) == EACH;
        }
    assert_int_equal(model->staging.bytes, bytes);
    assert_int_equal(buffers->free_count, COUNT);
    assert_int_equal(lent + buffers->spare_count, buffers->substitutes);
    assert_in_range(buffers->spare_warm, 0, buffers->spare_count);
    assert_in_range(buffers->spare_unused, 0, buffers->spare_warm);
}

static void what_is_staged_comes_back(void **state)
{
    (void)state;
    struct random_state random = {random_seed()};
    static struct model model;
    assert_int_equal(buffers_init(&model.buffers, COUNT * EACH, EACH, LOANS * EACH), 0);
    assert_int_equal(staging_init(&model.staging, &model.buffers, FILES), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t file = (uint32_t)random_below(&random, FILES);
        uint32_t index = (uint32_t)random_below(&random, count_of(file));
        uint64_t what = random_below(&random, 100);
        if (what == 0)
            forget(&model, file);
        else if (what == 1)
            give_memory_back(&model);
        else if (model.staged[file][index])
            take(&model, file, index);
        else
            put(&model, file, index, (char)round);
        check(&model);
    }
    staging_free(&model.staging);
    assert_int_equal(model.staging.bytes, 0);
    buffers_destroy(&model.buffers);
}

/* What was staged and came back is lent again before there is more, and no longer counts as unused.
 */
static void memory_is_used_again(void **state)
{
    (void)state;
    struct model model = {0};
    assert_int_equal(buffers_init(&model.buffers, COUNT * EACH, EACH, LOANS * EACH), 0);
    assert_int_equal(staging_init(&model.staging, &model.buffers, FILES), 0);
    for (uint32_t i = 0; i < 5; i++)
        put(&model, 1, i, 'a');
    for (uint32_t i = 0; i < 5; i++)
        take(&model, 1, i);
    assert_null(buffers_take_unused(&model.buffers)); /* they have just been */
    buffers_begin_count(&model.buffers);
    put(&model, 1, 7, 'b');
    put(&model, 1, 8, 'b');
    assert_int_equal(model.buffers.substitutes, 5);
    take(&model, 1, 7);
    for (unsigned i = 0; i < 3; i++) {
        char *buffer = buffers_take_unused(&model.buffers);
        assert_non_null(buffer);
        buffers_put_empty(&model.buffers, buffer);
    }
    assert_null(buffers_take_unused(&model.buffers));
    check(&model);
    staging_free(&model.staging);
    buffers_destroy(&model.buffers);
}

static void a_file_is_told_what_it_takes(void **state)
{
    (void)state;
    struct model model = {0};
    assert_int_equal(buffers_init(&model.buffers, COUNT * EACH, EACH, LOANS * EACH), 0);
    assert_int_equal(staging_init(&model.staging, &model.buffers, FILES), 0);
    for (uint32_t file = 0; file < FILES; file++) {
        for (uint32_t i = 0; i < count_of(file); i++)
            put(&model, file, i, 'a');
        assert_int_equal(staging_cost(&model.staging, sizes[file]), model.staging.bytes);
        forget(&model, file);
    }
    assert_int_equal(staging_cost(&model.staging, 0), 0);
    model.staging.budget = 100;
    model.staging.reserved = 40;
    assert_int_equal(staging_room(&model.staging), 60);
    model.staging.reserved = 140;
    assert_int_equal(staging_room(&model.staging), 0);
    staging_free(&model.staging);
    buffers_destroy(&model.buffers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_staged_comes_back),
        cmocka_unit_test(memory_is_used_again),
        cmocka_unit_test(a_file_is_told_what_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
