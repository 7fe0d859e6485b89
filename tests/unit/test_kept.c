/* SPDX-License-Identifier: MIT
 *
 * Chunks that stay in their buffers. */
#include "engine/kept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LIMIT = 4 };

static void put(struct kept_chunks *kept, uint32_t index, uint64_t since_ns)
{
    static char buffers[16];
    struct kept_chunk chunk = {
        .file = 7, .index = index, .since_ns = since_ns, .buffer = &buffers[index]};
    kept_put(kept, &chunk);
}

static void chunks_are_handed_back_once_and_the_oldest_first(void **state)
{
    struct kept_chunks kept;
    struct kept_chunk out;
    (void)state;
    assert_int_equal(kept_init(&kept, LIMIT), 0);
    assert_false(kept_take_oldest(&kept, UINT64_MAX, &out));
    for (uint32_t i = 0; i < LIMIT; i++)
        put(&kept, i, 10 + i);
    assert_true(kept_has(&kept, 7, 3));
    assert_false(kept_has(&kept, 8, 3));
    assert_true(kept_take(&kept, 7, 1, &out));
    assert_int_equal(out.index, 1);
    assert_false(kept_take(&kept, 7, 1, &out));
    assert_false(kept_take_oldest(&kept, 9, &out));
    assert_true(kept_take_oldest(&kept, 12, &out));
    assert_int_equal(out.index, 0);
    assert_true(kept_take_oldest(&kept, 12, &out));
    assert_int_equal(out.index, 2);
    assert_false(kept_take_oldest(&kept, 12, &out));
    put(&kept, 5, 20);
    assert_true(kept_take(&kept, 7, 3, &out));
    assert_true(kept_take(&kept, 7, 5, &out));
    assert_int_equal(kept.count, 0);
    kept_free(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_handed_back_once_and_the_oldest_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
