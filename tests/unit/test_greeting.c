/* SPDX-License-Identifier: MIT
 *
 * What was agreed on with the kernel, once: the next process agrees to the same, or does not go on.
 */
#include "fs/kernel/greeting.c"

#include <errno.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { UNIQUE = 2, LENGTH = 104 };

struct init {
    struct fuse_in_header in;
    char rest[LENGTH - sizeof(struct fuse_in_header)];
};

struct reply {
    struct fuse_out_header out;
    char rest[64];
};

static struct unshard_keep *make_keep(void)
{
    struct unshard_keep *keep;
    struct unshard_error error;
    assert_int_equal(unshard_keep_new(4096, &keep, &error), 0);
    return keep;
}

static struct init init_of(uint32_t opcode)
{
    struct init init = {.in = {.len = LENGTH, .opcode = opcode, .unique = UNIQUE}};
    memset(init.rest, 7, sizeof init.rest);
    return init;
}

static struct reply reply_of(int error, char filling)
{
    struct reply reply = {.out = {.len = sizeof reply, .error = error, .unique = UNIQUE}};
    memset(reply.rest, filling, sizeof reply.rest);
    return reply;
}

/* In two pieces, as libfuse does it. */
static bool answer(struct greeting *greeting, struct reply *reply)
{
    const struct iovec pieces[] = {{&reply->out, sizeof reply->out},
                                   {reply->rest, sizeof reply->rest}};
    return greeting_answered(greeting, pieces, 2);
}

/* What the first process and the kernel agree on. */
static struct unshard_keep *agree(int error)
{
    struct greeting greeting = {.keep = make_keep()};
    struct init init = init_of(FUSE_INIT);
    struct reply reply = reply_of(error, 'a');
    greeting_heard(&greeting, &init, sizeof init);
    assert_false(answer(&greeting, &reply)); /* it is for the kernel */
    return greeting.keep;
}

/* Whether the next process may go on, which would reply so. */
static bool agrees(struct unshard_keep *keep, char filling)
{
    struct greeting greeting = {.keep = keep};
    struct init found, init = init_of(FUSE_INIT);
    struct reply reply = reply_of(0, filling);
    assert_int_equal(greeting_repeat(&greeting, &found, sizeof found), sizeof init);
    assert_memory_equal(&found, &init, sizeof init);
    assert_true(answer(&greeting, &reply)); /* nobody sees it */
    assert_int_equal(greeting.unique, 0);
    assert_false(answer(&greeting, &reply)); /* what comes later is for the kernel again */
    return !greeting.differs;
}

static void test_the_same_is_agreed_on(void **state)
{
    struct unshard_keep *keep = agree(0);
    (void)state;
    assert_true(agrees(keep, 'a'));
    assert_true(agrees(keep, 'a')); /* and by the one after that */
    unshard_keep_close(keep);
}

static void test_another_reply_is_noticed(void **state)
{
    struct unshard_keep *keep = agree(0);
    (void)state;
    assert_false(agrees(keep, 'b'));
    unshard_keep_close(keep);
}

static void test_what_was_refused_was_not_agreed_on(void **state)
{
    struct greeting greeting = {.keep = agree(-EPROTO)};
    char request[LENGTH];
    (void)state;
    assert_int_equal(greeting_repeat(&greeting, request, sizeof request), 0);
    unshard_keep_close(greeting.keep);
}

static void test_other_requests_are_no_greeting(void **state)
{
    struct greeting greeting = {.keep = make_keep()};
    struct init init = init_of(FUSE_LOOKUP);
    struct reply reply = reply_of(0, 'a');
    (void)state;
    greeting_heard(&greeting, &init, sizeof init);
    assert_false(answer(&greeting, &reply));
    assert_int_equal(greeting_repeat(&greeting, &init, sizeof init), 0);
    unshard_keep_close(greeting.keep);
}

static int damage(void *context, void *record, size_t bytes)
{
    const uint32_t *lengths = context;
    (void)bytes;
    memcpy(record, lengths, 2 * sizeof *lengths);
    return 0;
}

static void test_a_damaged_record_is_no_greeting(void **state)
{
    static uint32_t lengths[][2] = {
        {0, 80}, {39, 80}, {MOST + 1, 80}, {104, MOST + 1}, {UINT32_MAX, UINT32_MAX}};
    struct greeting greeting = {.keep = agree(0)};
    char request[LENGTH];
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        unshard_keep_each(greeting.keep, UNSHARD_KEEP_SESSION, damage, lengths[i]);
        assert_int_equal(greeting_repeat(&greeting, request, sizeof request), 0);
    }
    unshard_keep_close(greeting.keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_is_agreed_on),
        cmocka_unit_test(test_another_reply_is_noticed),
        cmocka_unit_test(test_what_was_refused_was_not_agreed_on),
        cmocka_unit_test(test_other_requests_are_no_greeting),
        cmocka_unit_test(test_a_damaged_record_is_no_greeting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
