/* SPDX-License-Identifier: MIT
 *
 * Tasks that run several at once: each runs once, and where they wait for something there are as
 * many threads as it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

enum { MANY = 5000, TOGETHER = 100, BOUND_SECONDS = 30 };

static void count_calls(void *context, uint32_t number)
{
    atomic_uint *calls = context;
    atomic_fetch_add(&calls[number], 1);
}

static void test_each_number_once(void **state)
{
    static atomic_uint calls[MANY];
    static const uint32_t counts[] = {0, 1, 2, 3, 64, MANY};
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (uint32_t n = 0; n < MANY; n++)
            atomic_store(&calls[n], 0);
        parallel_run(counts[i], count_calls, calls);
        for (uint32_t n = 0; n < MANY; n++)
            assert_int_equal(atomic_load(&calls[n]), n < counts[i]);
    }
}

/* Tasks that wait until so many of them are there. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned wanted, present, most;
    bool met, late;
};

static void meet(void *context, uint32_t number)
{
    struct meeting *meeting = context;
    struct timespec until;
    int result = 0;
    (void)number;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BOUND_SECONDS;
    pthread_mutex_lock(&meeting->lock);
    meeting->present++;
    if (meeting->present > meeting->most)
        meeting->most = meeting->present;
    meeting->met = meeting->met || meeting->present >= meeting->wanted;
    pthread_cond_broadcast(&meeting->changed);
    while (!meeting->met && result == 0)
        result = pthread_cond_timedwait(&meeting->changed, &meeting->lock, &until);
    meeting->late = meeting->late || result != 0;
    meeting->present--;
    pthread_mutex_unlock(&meeting->lock);
}

static void test_tasks_that_wait(void **state)
{
    struct meeting meeting = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .wanted = TOGETHER};
    (void)state;
    parallel_run(MANY, meet, &meeting);
    assert_false(meeting.late);
}

/* Each may have a few descriptors open. */
static void test_few_descriptors(void **state)
{
    struct meeting meeting = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .wanted = 2};
    struct rlimit before, few;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    parallel_run(200, meet, &meeting);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(meeting.late);
    assert_true(meeting.most <= 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_number_once),
        cmocka_unit_test(test_tasks_that_wait),
        cmocka_unit_test(test_few_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
