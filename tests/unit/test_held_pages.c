/* SPDX-License-Identifier: MIT
 *
 * Pages that several chunks make together. */
#include "engine/engine_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#define HALF (HELD_PAGE_BYTES / 2)

static bool add_half(struct held_pages *held, uint64_t page, unsigned half, char *out)
{
    char bytes[HALF];
    memset(bytes, (int)(page % 251 + half), sizeof bytes);
    return held_pages_add(held, 0, page, half * HALF, bytes, HALF, HELD_PAGE_BYTES, out);
}

static size_t completed(struct held_pages *held, size_t pages)
{
    char out[HELD_PAGE_BYTES];
    size_t complete = 0;
    for (uint64_t page = 0; page < pages; page++)
        assert_false(add_half(held, page, 0, out));
    for (uint64_t page = 0; page < pages; page++)
        if (add_half(held, page, 1, out)) {
            complete++;
            assert_int_equal((unsigned char)out[HALF - 1], page % 251);
            assert_int_equal((unsigned char)out[HALF], page % 251 + 1);
            held_pages_forget_range(held, 0, page, page); /* it has been stored */
        }
    return complete;
}

/* Interleaved tensors leave many pages half done for long. */
static void pages_wait_for_their_other_half(void **state)
{
    struct unshard_engine engine = {.plan.total_bytes = 1, .chunk_bytes = DEFAULT_CHUNK_BYTES};
    (void)state;
    assert_int_equal(held_pages_init(&engine.held, 1), 0);
    window_update(&engine, UINT64_C(8) << 30);
    assert_int_equal(completed(&engine.held, 20000), 20000);
    assert_true(held_pages_empty(&engine.held));
    held_pages_free(&engine.held);
}

static void a_lower_limit_drops_the_oldest(void **state)
{
    struct held_pages held;
    char out[HELD_PAGE_BYTES];
    (void)state;
    assert_int_equal(held_pages_init(&held, 100), 0);
    for (uint64_t page = 0; page < 100; page++)
        assert_false(add_half(&held, page, 0, out));
    held_pages_set_limit(&held, 10);
    assert_false(add_half(&held, 100, 0, out));
    assert_int_equal(held.count, 10);
    assert_false(add_half(&held, 90, 1, out));
    assert_true(add_half(&held, 100, 1, out));
    assert_true(add_half(&held, 93, 1, out));
    held_pages_free(&held);
}

static void a_half_is_there_to_be_read(void **state)
{
    struct held_pages held;
    char out[HELD_PAGE_BYTES];
    uint32_t from, to;
    (void)state;
    assert_int_equal(held_pages_init(&held, 100), 0);
    assert_false(held_pages_take(&held, 0, 7, true, &from, &to, out));
    assert_false(add_half(&held, 7, 1, out));
    assert_true(held_pages_take(&held, 0, 7, true, &from, &to, out));
    assert_int_equal(from, HALF);
    assert_int_equal(to, HELD_PAGE_BYTES);
    assert_int_equal(out[HALF], 7 + 1);
    assert_int_equal(out[HELD_PAGE_BYTES - 1], 7 + 1);
    assert_true(add_half(&held, 7, 0, out)); /* it was still waiting for the other one */
    held_pages_free(&held);
}

/* Who sees nothing of the page cache brings no page into it. */
static void a_page_stays_until_it_is_cached(void **state)
{
    struct held_pages held;
    char out[HELD_PAGE_BYTES];
    uint32_t from, to;
    (void)state;
    assert_int_equal(held_pages_init(&held, 100), 0);
    assert_false(add_half(&held, 7, 0, out));
    assert_true(add_half(&held, 7, 1, out));
    for (unsigned times = 0; times < 2; times++)
        assert_true(held_pages_take(&held, 0, 7, false, &from, &to, out));
    assert_true(held_pages_take(&held, 0, 7, true, &from, &to, out));
    assert_int_equal(to - from, HELD_PAGE_BYTES);
    assert_false(held_pages_take(&held, 0, 7, true, &from, &to, out));
    held_pages_free(&held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_wait_for_their_other_half),
        cmocka_unit_test(a_lower_limit_drops_the_oldest),
        cmocka_unit_test(a_half_is_there_to_be_read),
        cmocka_unit_test(a_page_stays_until_it_is_cached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
