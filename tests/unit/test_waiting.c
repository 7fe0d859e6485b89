/* SPDX-License-Identifier: MIT
 *
 * The room where requests wait, with a libfuse of our own: who answers what, and when. */
#include "fs/host/monotonic.c"
#include "fs/kernel/waiting.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define REQUESTS 64
#define NOT_ANSWERED (-1)

/* A request, as libfuse has it: interrupting calls what was asked for, with the request's lock. */
struct fuse_req {
    pthread_mutex_t lock;
    fuse_interrupt_func_t interrupted;
    void *context;
    bool is_interrupted;
    int answer;
};

static struct fuse_req requests[REQUESTS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

void fuse_req_interrupt_func(fuse_req_t request, fuse_interrupt_func_t func, void *data)
{
    pthread_mutex_lock(&request->lock);
    request->interrupted = func;
    request->context = data;
    if (request->is_interrupted && func)
        func(request, data);
    pthread_mutex_unlock(&request->lock);
}

int fuse_reply_err(fuse_req_t request, int error)
{
    pthread_mutex_lock(&mutex);
    assert_int_equal(request->answer, NOT_ANSWERED); /* exactly once */
    request->answer = error;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return 0;
}

static void interrupt(struct fuse_req *request)
{
    pthread_mutex_lock(&request->lock);
    request->is_interrupted = true;
    if (request->interrupted)
        request->interrupted(request, request->context);
    pthread_mutex_unlock(&request->lock);
}

static int wait_answer(struct fuse_req *request)
{
    pthread_mutex_lock(&mutex);
    while (request->answer == NOT_ANSWERED)
        pthread_cond_wait(&changed, &mutex);
    int answer = request->answer;
    pthread_mutex_unlock(&mutex);
    return answer;
}

/* What the jobs of a test do: hang while `closed`, then answer 0. */
static struct {
    bool closed; /* of mutex, as all of this */
    unsigned begun, ended, released, most_at_once;
    unsigned order[REQUESTS], ordered;
} gate;

struct one {
    struct waiting_job job;
    struct waiting_room *room;
    unsigned number;
};

static void wait_count(const unsigned *count, unsigned least)
{
    pthread_mutex_lock(&mutex);
    while (*count < least)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void set_closed(bool closed)
{
    pthread_mutex_lock(&mutex);
    gate.closed = closed;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static void pass(struct waiting_job *job)
{
    struct one *one = (struct one *)job;
    pthread_mutex_lock(&mutex);
    gate.begun++;
    if (gate.begun - gate.ended > gate.most_at_once)
        gate.most_at_once = gate.begun - gate.ended;
    pthread_cond_broadcast(&changed);
    while (gate.closed)
        pthread_cond_wait(&changed, &mutex);
    gate.order[gate.ordered++ % REQUESTS] = one->number;
    gate.ended++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    struct fuse_req *request = waiting_take(one->room, job);
    if (request)
        fuse_reply_err(request, 0);
}

static void release_one(struct waiting_job *job)
{
    free(job);
    pthread_mutex_lock(&mutex);
    gate.released++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static int enter(struct waiting_room *room, uint64_t key, unsigned number)
{
    struct one *one = calloc(1, sizeof *one);
    assert_non_null(one);
    one->job.work = pass;
    one->job.release = release_one;
    one->job.key = key;
    one->room = room;
    one->number = number;
    int result = waiting_enter(room, &one->job, number < REQUESTS ? &requests[number] : NULL);
    if (result)
        free(one);
    return result;
}

static int setup(void **state)
{
    memset(&gate, 0, sizeof gate);
    for (int i = 0; i < REQUESTS; i++) {
        requests[i] = (struct fuse_req){.answer = NOT_ANSWERED};
        pthread_mutex_init(&requests[i].lock, NULL);
    }
    *state = waiting_room_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    set_closed(false);
    int result = waiting_close(*state, 10000);
    if (result == 0)
        waiting_room_free(*state);
    return result;
}

static void test_all_are_answered(void **state)
{
    for (unsigned i = 0; i < REQUESTS; i++)
        assert_int_equal(enter(*state, i % 7, i), 0);
    for (unsigned i = 0; i < REQUESTS; i++)
        assert_int_equal(wait_answer(&requests[i]), 0);
    wait_count(&gate.released, REQUESTS);
}

static void test_one_key_is_one_thread_in_order(void **state)
{
    set_closed(true);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(enter(*state, 5, i), 0);
    assert_int_equal(enter(*state, 6, 20), 0); /* another one is not held up */
    wait_count(&gate.begun, 2);
    set_closed(false);
    wait_count(&gate.ended, 21);
    assert_true(gate.most_at_once <= 2);
    for (unsigned i = 0, next = 0; i < 21; i++)
        if (gate.order[i] != 20)
            assert_int_equal(gate.order[i], next++);
}

static void test_as_many_threads_as_there_is_to_do(void **state)
{
    set_closed(true);
    for (unsigned i = 0; i < WAITING_THREADS + 10; i++)
        assert_int_equal(enter(*state, i, REQUESTS), 0); /* without a request */
    wait_count(&gate.begun, WAITING_THREADS);
    set_closed(false);
    wait_count(&gate.released, WAITING_THREADS + 10);
    assert_int_equal(gate.most_at_once, WAITING_THREADS);
}

static void test_too_many_are_refused(void **state)
{
    unsigned taken = 0;
    set_closed(true);
    while (enter(*state, 1, REQUESTS) == 0)
        taken++;
    assert_in_range(taken, WAITING_JOBS, WAITING_JOBS + 1);
    assert_int_equal(enter(*state, 1, 0), -EAGAIN);
    set_closed(false);
    wait_count(&gate.released, taken);
    assert_int_equal(enter(*state, 1, 0), 0);
    assert_int_equal(wait_answer(&requests[0]), 0);
}

static void test_interrupted_while_it_hangs(void **state)
{
    set_closed(true);
    assert_int_equal(enter(*state, 1, 0), 0); /* is begun */
    assert_int_equal(enter(*state, 1, 1), 0); /* waits behind it */
    assert_int_equal(enter(*state, 1, 2), 0);
    wait_count(&gate.begun, 1);
    int64_t begun = monotonic_ms();
    interrupt(&requests[0]);
    interrupt(&requests[1]);
    assert_int_equal(wait_answer(&requests[0]), EINTR);
    assert_int_equal(wait_answer(&requests[1]), EINTR);
    assert_true(monotonic_ms() - begun >= WAITING_GRACE_MS);
    wait_count(&gate.released, 1); /* the one that nobody had begun */
    set_closed(false);
    assert_int_equal(wait_answer(&requests[2]), 0);
    wait_count(&gate.released, 3);
    assert_int_equal(gate.begun, 2);
}

static void test_interrupted_but_done_in_time(void **state)
{
    set_closed(true);
    assert_int_equal(enter(*state, 1, 0), 0);
    wait_count(&gate.begun, 1);
    interrupt(&requests[0]);
    set_closed(false);
    assert_int_equal(wait_answer(&requests[0]), 0);
}

static void test_interrupted_before_it_enters(void **state)
{
    set_closed(true);
    requests[0].is_interrupted = true;
    assert_int_equal(enter(*state, 1, 0), 0);
    assert_int_equal(wait_answer(&requests[0]), EINTR);
}

static void test_closing_answers_all_and_tells_what_hangs(void **state)
{
    set_closed(true);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(enter(*state, i % 2, i), 0);
    wait_count(&gate.begun, 2);
    assert_false(waiting_closed(*state));
    assert_int_equal(waiting_close(*state, 20), -ETIMEDOUT);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(wait_answer(&requests[i]), ESHUTDOWN);
    assert_true(waiting_closed(*state));
    assert_int_equal(gate.released, 8);
    assert_int_equal(enter(*state, 3, 20), -ESHUTDOWN);
    set_closed(false); /* teardown finds that none hangs any more */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_key_is_one_thread_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_as_many_threads_as_there_is_to_do, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_while_it_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_but_done_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_before_it_enters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_answers_all_and_tells_what_hangs, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
