/* SPDX-License-Identifier: MIT
 *
 * The engine against a checkpoint made by hand and a page cache made of memory: what is stored and
 * what reads get are the view's bytes, and reads are answered whatever stores do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "support/engine_fixture.h"

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_reads_at_every_boundary(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    static const size_t sizes[] = {1, 2, PAGE, PAGE + 1, CHUNK, 3 * CHUNK + 5, 1 << 20};
    for (size_t e = 0; e < fixture->view.map.count; e++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int d = -1; d <= 1; d++) {
                uint64_t at = fixture->view.map.extents[e].view_offset;
                if (at > 0 || d >= 0)
                    check_read(fixture, engine, at + (uint64_t)(int64_t)d, sizes[s]);
            }
    for (uint64_t at = 0; at < fixture->view.size; at += CHUNK - 1)
        check_read(fixture, engine, at, 3);
    check_read(fixture, engine, fixture->view.size - 1, 10);
    check_read(fixture, engine, fixture->view.size, 10);
    check_read(fixture, engine, fixture->view.size + 12345, 10);
    unshard_engine_stop(engine);
}

static void test_prefetch_stores_every_page_once_known(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start(fixture, &cache, small);
    assert_int_equal(bytes_stored(&cache), 0);
    unshard_engine_view_known(engine, 0, true);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_reads_are_answered_while_all_stores_block(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    cache.blocked = true;
    struct unshard_fetch_options options = small;
    options.jobs = 2;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    for (uint64_t at = 0; at < fixture->view.size; at += 30000)
        check_read(fixture, engine, at, 131072);
    wait_for_blocked_stores(&cache, storers_of(engine));
    assert_int_equal(unshard_engine_quiesce(engine, 50), -ETIMEDOUT);
    for (uint64_t at = fixture->view.size; at > 30000; at -= 30000)
        check_read(fixture, engine, at - 30000, 40000);
    set_blocked(&cache, false);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_window_bounds_what_nobody_has_read(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    struct unshard_fetch_options options = small;
    cache_init(&cache, fixture);
    options.window_bytes = 8 * CHUNK;
    options.jobs = 2;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    wait_for_pages(&cache, 3 * CHUNK / PAGE - 16);
    char *json = NULL;
    struct timespec until = deadline(), now;
    do { /* until it says that it waits */
        free(json);
        json = rendered(engine, unshard_status_json);
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    } while (strstr(json, "window ahead of readers is full") == NULL);
    free(json);
    assert_true(bytes_stored(&cache) <= 8 * CHUNK);
    /* A reader passes: everything comes, in part by its own reads. */
    for (uint64_t at = 0; at < fixture->view.size; at += PAGE)
        if (!is_present(&cache, at / PAGE))
            check_read(fixture, engine, at, PAGE);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* A number of the status. */
static uint64_t figure(struct unshard_engine *engine, const char *name)
{
    char pattern[64];
    char *json = rendered(engine, unshard_status_json);
    snprintf(pattern, sizeof pattern, "\"%s\":\t", name);
    const char *at = strstr(json, pattern);
    assert_non_null(at);
    uint64_t value = strtoull(at + strlen(pattern), NULL, 10);
    free(json);
    return value;
}

static void wait_for_figure(struct unshard_engine *engine, const char *name, uint64_t least)
{
    struct timespec until = deadline(), now;
    do {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    } while (figure(engine, name) < least);
}

/* The plan goes round a file whose storage hangs, and comes back to it. */
static void test_a_file_that_hangs_keeps_its_place(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start(fixture, &cache, small);
    pthread_mutex_lock(&engine->lock);
    engine->files[2].stalled = 1;
    pthread_mutex_unlock(&engine->lock);
    unshard_engine_view_known(engine, 0, true);
    uint64_t without = pages_with_shard_bytes(fixture) - file_sizes[2] / PAGE - 2;
    wait_for_pages(&cache, without);
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    assert_true(bytes_stored(&cache) / PAGE < pages_with_shard_bytes(fixture));
    assert_true(status_has(engine, "\"state\":\t\"prefetching\""));
    pthread_mutex_lock(&engine->lock);
    engine->files[2].stalled = 0;
    schedule_offer(engine, 2);
    pthread_mutex_unlock(&engine->lock);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    wait_for_status(engine, "\"state\":\t\"ready\"");
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* Storage is not read again and again for pages that nobody takes, and nothing is lost by it. */
static void test_stores_that_fail_are_tried_again_later(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_fetch_options options = small;
    options.jobs = 1;
    cache.failing = -ENOMEM;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    wait_for_figure(engine, "store_errors", 4 + storers_of(engine));
    uint64_t errors = figure(engine, "store_errors");
    assert_true(figure(engine, "bytes_read") <=
                (errors + 1 + storers_of(engine) + engine->pages.most_queued) * CHUNK);
    assert_true(errors < 64);
    set_failing(&cache, 0);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* The kernel has dropped the pages: a reader that comes again is read ahead of again. */
static void test_dropped_pages_come_back_ahead_of_a_reader(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_fetch_options options = small;
    options.prefetch = UNSHARD_PREFETCH_FOLLOW;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    check_read(fixture, engine, 5000, 100);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    /* What was published just now is believed. */
    nanosleep(&(struct timespec){.tv_nsec = 40000000}, NULL);
    lose_pages(&cache);
    uint64_t read = figure(engine, "bytes_read");
    check_read(fixture, engine, 0, 4 * PAGE);
    wait_for_figure(engine, "bytes_read", read + 2 * CHUNK);
    /* And only once. */
    for (uint64_t at = 0; at < 8 * CHUNK; at += PAGE) {
        wait_for_status(engine,
                        "\"buffer_used_bytes\":\t0"); /* the kernel asks for no page twice */
        if (!is_present(&cache, at / PAGE))
            check_read(fixture, engine, at, PAGE);
    }
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    assert_true(figure(engine, "bytes_read") - read <= fixture->view.size + CHUNK);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* What was fetched for a reader that has gone away keeps no room from others. */
static void test_a_reader_that_leaves_frees_the_window(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_fetch_options options = small;
    options.prefetch = UNSHARD_PREFETCH_FOLLOW;
    options.window_bytes = 8 * CHUNK;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    unshard_engine_view_opened(engine, 0, false, 1);
    check_read(fixture, engine, 5000, 100);
    wait_for_figure(engine, "unconsumed_bytes", CHUNK);
    unshard_engine_view_opened(engine, 0, false, -1);
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    assert_int_equal(figure(engine, "unconsumed_bytes"), 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void read_all_directly(struct fixture *fixture, struct unshard_engine *engine)
{
    for (uint64_t at = 0; at < fixture->view.size; at += CHUNK / 4)
        check_read_by(unshard_engine_read_direct, fixture, engine, at, CHUNK / 4);
}

/* Nobody but it wants the pages: none is stored. */
static void test_a_direct_reader_has_storage_read_once(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_fetch_options options = small;
    options.prefetch = UNSHARD_PREFETCH_FOLLOW;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    unshard_engine_view_opened(engine, 0, true, 1);
    read_all_directly(fixture, engine);
    assert_true(figure(engine, "bytes_read") <= fixture->view.size + CHUNK);
    assert_int_equal(bytes_stored(&cache), 0);
    unshard_engine_view_opened(engine, 0, true, -1);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* The plan wants the pages as well; and that the reader asks says nothing of what is there. */
static void test_a_direct_reader_and_the_plan(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start(fixture, &cache, small);
    unshard_engine_view_opened(engine, 0, true, 1);
    unshard_engine_view_known(engine, 0, true);
    read_all_directly(fixture, engine);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    uint64_t read = figure(engine, "bytes_read"), published = figure(engine, "bytes_published");
    read_all_directly(fixture, engine);
    wait_for_status(engine, "\"buffer_used_bytes\":\t0");
    assert_true(figure(engine, "bytes_read") <= read + fixture->view.size + CHUNK);
    assert_int_equal(figure(engine, "bytes_published"), published);
    assert_int_equal(figure(engine, "chunks_evicted"), 0);
    /* A reader that sees the page cache proves it. */
    lose_pages(&cache);
    check_read_by(unshard_engine_read_direct, fixture, engine, 100000, 2 * PAGE);
    check_read(fixture, engine, 100000, 4 * PAGE);
    wait_for_pages(&cache, CHUNK / PAGE / 2);
    assert_true(figure(engine, "chunks_evicted") > 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_view_opened(engine, 0, true, -1);
    unshard_engine_stop(engine);
    free(cache.present);
}

/* Where pages are not taken, a reader's next reads find the rest of the chunk in its buffer. */
static void test_what_is_not_stored_is_not_read_again_for_each_read(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_fetch_options options = small;
    options.prefetch = UNSHARD_PREFETCH_OFF;
    cache.failing = -EINVAL;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    for (uint64_t at = 0; at < fixture->view.size; at += CHUNK / 8)
        check_read(fixture, engine, at, CHUNK / 8);
    assert_true(figure(engine, "bytes_read") <= fixture->view.size + CHUNK);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_truncated_file_fails_only_its_ranges(void **state)
{
    struct fixture *fixture = *state;
    char path[96];
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[0]);
    assert_int_equal(truncate(path, 100), 0);
    struct unshard_engine *engine = start(fixture, NULL, small);
    char data[16];
    size_t got;
    assert_int_equal(read_view(engine, 5000, data, 16, &got), EIO);
    uint64_t second = fixture->view.map.extents[2].view_offset;
    check_read(fixture, engine, second, 100000);
    char *errors = rendered(engine, unshard_status_errors);
    assert_non_null(strstr(errors, "shard=\"s0\" code=truncated offset=100"));
    assert_null(strstr(errors, "s1"));
    free(errors);
    unshard_engine_stop(engine);
}

static void test_bytes_that_change_silently_are_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    char path[96], data[16];
    size_t got;
    check_read(fixture, engine, 5000, 16);
    wait_for_status(engine, "\"buffer_used_bytes\":\t0"); /* it must be read anew */
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[0]);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "?", 1, 1000), 1);
    struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {fixture->files[0].mtime_ns / 1000000000, fixture->files[0].mtime_ns % 1000000000}};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    assert_int_equal(read_view(engine, 5000, data, 16, &got), EIO);
    char *errors = rendered(engine, unshard_status_errors);
    assert_non_null(strstr(errors, "when it was read before"));
    free(errors);
    unshard_engine_stop(engine);
}

static void test_stop_answers_what_is_queued(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    static char data[64][131072];
    struct result results[64];
    for (int i = 0; i < 64; i++) {
        results[i] = (struct result){.data = data[i]};
        pthread_mutex_init(&results[i].lock, NULL);
        pthread_cond_init(&results[i].changed, NULL);
        unshard_engine_read(engine, 0, (uint64_t)i * 10000, 131072, read_done, &results[i]);
    }
    unshard_engine_stop(engine);
    for (int i = 0; i < 64; i++)
        assert_int_equal(results[i].calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_at_every_boundary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefetch_stores_every_page_once_known, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_reads_are_answered_while_all_stores_block, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_window_bounds_what_nobody_has_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_hangs_keeps_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stores_that_fail_are_tried_again_later, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_dropped_pages_come_back_ahead_of_a_reader, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_reader_that_leaves_frees_the_window, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_direct_reader_has_storage_read_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_direct_reader_and_the_plan, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_stored_is_not_read_again_for_each_read,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated_file_fails_only_its_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_change_silently_are_noticed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_stop_answers_what_is_queued, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
