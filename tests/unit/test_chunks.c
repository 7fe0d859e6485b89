/* SPDX-License-Identifier: MIT
 *
 * What is remembered of the chunks of a file: as much as has happened to them. */
#include "engine/engine_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNKS = 300 };

/* Against an array of booleans; runs that touch, lie in each other, come in any order. */
static void runs_are_what_was_added(void **state)
{
    (void)state;
    srandom(7);
    for (unsigned round = 0; round < 500; round++) {
        struct chunk_runs runs = {0};
        bool have[CHUNKS] = {false};
        uint32_t total = 0;
        for (long k = random() % 12; k > 0; k--) {
            uint32_t first = (uint32_t)random() % CHUNKS;
            uint32_t last = first + (uint32_t)random() % (CHUNKS - first);
            assert_true(chunk_runs_add(&runs, first, last));
            for (uint32_t i = first; i <= last; i++)
                have[i] = true;
        }
        chunk_runs_settle(&runs);
        for (uint32_t i = 0; i < CHUNKS; i++) {
            assert_int_equal(chunk_runs_have(&runs, i), have[i]);
            total += have[i];
        }
        assert_int_equal(chunk_runs_total(&runs), total);
        chunk_runs_free(&runs);
    }
}

static void neighbours_are_one_run(void **state)
{
    (void)state;
    struct chunk_runs runs = {0};
    for (uint32_t i = 0; i < 1000; i += 2)
        assert_true(chunk_runs_add(&runs, i, i));
    for (uint32_t i = 1; i < 1000; i += 2)
        assert_true(chunk_runs_add(&runs, i, i));
    assert_true(chunk_runs_add(&runs, UINT32_MAX, UINT32_MAX));
    chunk_runs_settle(&runs);
    assert_int_equal(runs.count, 2);
    assert_int_equal(chunk_runs_total(&runs), 1001);
    chunk_runs_free(&runs);
}

static size_t resident_pages(void)
{
    unsigned long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &all, &resident), 2);
    fclose(file);
    return resident;
}

/* 64 TiB in chunks of 64 KiB are 2^30 of them. */
static void a_huge_file_costs_nothing(void **state)
{
    (void)state;
    const struct unshard_engine engine = {.chunk_bytes = 64 << 10};
    struct file_state file = {0};
    size_t before = resident_pages();
    assert_int_equal(file_chunks_make(&engine, &file, CHECKPOINT_MAX_FILE_BYTES), 0);
    assert_int_equal(file.chunk_count, 1U << 30);
    assert_int_equal(chunk_next_touched(&file, 0), file.chunk_count);
    uint32_t last = file.chunk_count - 1, touched = 0;
    chunk_touch(&file, 5);
    chunk_touch(&file, last);
    file.chunks[5].seen = file.chunks[last].seen = true;
    for (uint32_t i = chunk_next_touched(&file, 0); i < file.chunk_count;
         i = chunk_next_touched(&file, i + 1), touched++)
        assert_int_equal(file.chunks[i].seen, i == 5 || i == last);
    assert_in_range(touched, 2, 10000);
    assert_true(resident_pages() < before + 16384); /* sanitizers take some */
    file_chunks_free(&file);
}

static void every_chunk_that_was_touched_is_found(void **state)
{
    (void)state;
    const struct unshard_engine engine = {.chunk_bytes = 4096};
    srandom(11);
    for (unsigned round = 0; round < 50; round++) {
        struct file_state file = {0};
        uint64_t size = (uint64_t)random() % (UINT64_C(1) << 32) + 1;
        assert_int_equal(file_chunks_make(&engine, &file, size), 0);
        for (unsigned k = 0; k < 20; k++) {
            uint32_t index = (uint32_t)random() % file.chunk_count;
            chunk_touch(&file, index);
            assert_int_equal(chunk_next_touched(&file, index), index);
            assert_true(chunk_next_touched(&file, 0) <= index);
        }
        file_chunks_free(&file);
    }
}

static void an_empty_file_has_no_chunks(void **state)
{
    (void)state;
    const struct unshard_engine engine = {.chunk_bytes = 4096};
    struct file_state file = {0};
    assert_int_equal(file_chunks_make(&engine, &file, 0), 0);
    assert_int_equal(chunk_next_touched(&file, 0), 0);
    file_chunks_free(&file);
    assert_int_equal(file_chunks_make(&engine, &file, UINT64_MAX), -EFBIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_are_what_was_added),
        cmocka_unit_test(neighbours_are_one_run),
        cmocka_unit_test(a_huge_file_costs_nothing),
        cmocka_unit_test(every_chunk_that_was_touched_is_found),
        cmocka_unit_test(an_empty_file_has_no_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
