/* SPDX-License-Identifier: MIT
 *
 * How many reads at a time, found out on storage of several kinds that is simulated. */
#include "engine/jobs.h"

#include "property/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CHUNK (UINT64_C(2) << 20)
#define SECOND UINT64_C(1000000000)
#define TICK (SECOND / 10)

/* Bytes a second that so many reads get. */
typedef double (*storage)(unsigned jobs);

static double fast_per_stream(unsigned jobs)
{
    return 100e6 * (jobs < 32 ? jobs : 32);
}

static double with_latency(unsigned jobs)
{
    double rate = (double)CHUNK / 0.021 * jobs;
    return rate < 2e9 ? rate : 2e9;
}

static double one_stream_is_enough(unsigned jobs)
{
    (void)jobs;
    return 500e6;
}

/* A disk with heads: it gets slower with each. */
static double worse_with_each(unsigned jobs)
{
    return 200e6 / (1 + 0.05 * jobs);
}

/* Runs for so many seconds, with some per cent of noise; the smallest and the largest count of the
 * second half. */
static void simulate(struct jobs *jobs, storage rate, bool from_memory, double noise,
                     unsigned seconds, unsigned *least, unsigned *most)
{
    struct random_state random = {random_seed()};
    double bytes = 0;
    *least = UINT32_MAX;
    *most = 0;
    for (uint64_t now = TICK; now < seconds * SECOND; now += TICK) {
        double factor = 1 + noise * ((double)random_below(&random, 2001) / 1000 - 1);
        for (bytes += rate(jobs_allowed(jobs)) * factor / 10; bytes >= CHUNK; bytes -= CHUNK)
            jobs_note_read(jobs, CHUNK, from_memory);
        jobs_adapt(jobs, now);
        unsigned allowed = jobs_allowed(jobs);
        if (now < seconds * SECOND / 2)
            continue;
        *least = allowed < *least ? allowed : *least;
        *most = allowed > *most ? allowed : *most;
    }
}

static void storage_that_is_fast_per_stream_gets_many(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    jobs_init(&jobs, 0, 120, 2, 0);
    assert_int_equal(jobs_allowed(&jobs), 16);
    simulate(&jobs, fast_per_stream, false, 0.02, 60, &least, &most);
    assert_in_range(least, 16, 32); /* a trial with fewer, or what it came from */
    assert_in_range(most, 32, 64);
    jobs_init(&jobs, 0, 120, 2, 0);
    simulate(&jobs, with_latency, false, 0.02, 60, &least, &most);
    assert_in_range(least, 8, 32);
    assert_in_range(most, 16, 64);
}

static void storage_that_gains_nothing_gets_few(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    jobs_init(&jobs, 0, 120, 2, 0);
    simulate(&jobs, one_stream_is_enough, false, 0.02, 120, &least, &most);
    assert_in_range(least, 4, 8);
    assert_in_range(most, 4, 16);
    jobs_init(&jobs, 0, 120, 2, 0);
    simulate(&jobs, worse_with_each, false, 0.02, 120, &least, &most);
    assert_int_equal(least, 4);
    assert_in_range(most, 4, 8);
}

static void noise_does_not_carry_it_away(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    jobs_init(&jobs, 0, 120, 2, 0);
    simulate(&jobs, fast_per_stream, false, 0.3, 300, &least, &most);
    assert_in_range(least, 4, 32);
    assert_in_range(most, 16, 64);
}

static void memory_is_read_by_as_many_as_copy_it(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    for (unsigned processors = 1; processors <= 64; processors *= 4) {
        jobs_init(&jobs, 0, 120, processors, 0);
        simulate(&jobs, one_stream_is_enough, true, 0.1, 10, &least, &most);
        assert_in_range(least, 2, 8);
        assert_true(least <= processors || processors == 1);
        assert_int_equal(most, least);
    }
    /* Storage again: at once more than that, and as many as before. */
    for (unsigned i = 0; i < 8; i++)
        jobs_note_read(&jobs, CHUNK, false);
    assert_int_equal(jobs_allowed(&jobs), 16);
}

static void what_was_asked_for_stays(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    jobs_init(&jobs, 5, 120, 2, 0);
    simulate(&jobs, fast_per_stream, false, 0.1, 10, &least, &most);
    assert_int_equal(least, 5);
    assert_int_equal(most, 5);
    simulate(&jobs, fast_per_stream, true, 0.1, 10, &least, &most);
    assert_int_equal(least, 5);
    jobs_init(&jobs, 100000, 120, 2, 0);
    assert_int_equal(jobs_allowed(&jobs), JOBS_MOST);
}

static void an_epoch_without_work_says_nothing(void **state)
{
    (void)state;
    struct jobs jobs;
    jobs_init(&jobs, 0, 120, 2, 0);
    for (uint64_t now = TICK; now < 60 * SECOND; now += TICK) {
        for (unsigned i = 0; i < 100; i++)
            jobs_note_read(&jobs, CHUNK, false);
        jobs_note_starved(&jobs);
        jobs_adapt(&jobs, now);
        assert_int_equal(jobs_allowed(&jobs), 16);
    }
}

static void there_is_room_for_no_more(void **state)
{
    (void)state;
    struct jobs jobs;
    unsigned least, most;
    jobs_init(&jobs, 0, 6, 2, 0);
    assert_int_equal(jobs_allowed(&jobs), 6);
    simulate(&jobs, fast_per_stream, false, 0.02, 30, &least, &most);
    assert_int_equal(most, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storage_that_is_fast_per_stream_gets_many),
        cmocka_unit_test(storage_that_gains_nothing_gets_few),
        cmocka_unit_test(noise_does_not_carry_it_away),
        cmocka_unit_test(memory_is_read_by_as_many_as_copy_it),
        cmocka_unit_test(what_was_asked_for_stays),
        cmocka_unit_test(an_epoch_without_work_says_nothing),
        cmocka_unit_test(there_is_room_for_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
