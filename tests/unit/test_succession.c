/* SPDX-License-Identifier: MIT
 *
 * What one daemon of a mount hands on to the next: words and descriptors, the environment, how the
 * mount was started, who lives. What is read of it may have been written by a process that ran
 * wild. */
#include "fs/host/close_others.c"
#include "fs/kernel/apart.c"
#include "fs/kernel/journal.c"
#include "fs/mount/life.c"
#include "fs/mount/start.c"
#include "fs/mount/succession.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sys/wait.h>

/* ---- words -------------------------------------------------------------------------------------
 */

static void close_handed(int handed[HANDED_COUNT])
{
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        if (handed[i] >= 0)
            close(handed[i]);
}

static void hand_on(unsigned count)
{
    int ends[2], handed[HANDED_COUNT], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int given[HANDED_COUNT] = {null, null, null};
    struct succession_message message;
    assert_int_equal(succession_pair(ends), 0);
    assert_int_equal(succession_hand(ends[0], WORD_HELLO, 7, given, count), 0);
    assert_int_equal(succession_hear(ends[1], &message, handed, 1000), 0);
    assert_int_equal(message.word, WORD_HELLO);
    assert_int_equal(message.number, 7);
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        assert_int_equal(handed[i] >= 0, i < count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(fcntl(handed[i], F_GETFD), FD_CLOEXEC);
    close_handed(handed);
    close(ends[0]);
    close(ends[1]);
    close(null);
}

static void test_words_and_descriptors(void **state)
{
    (void)state;
    for (unsigned count = 0; count <= HANDED_COUNT; count++)
        hand_on(count);
}

static void test_what_makes_no_sense_is_not_heard(void **state)
{
    int ends[2], handed[HANDED_COUNT];
    struct succession_message message;
    (void)state;
    assert_int_equal(succession_pair(ends), 0);
    assert_int_equal(succession_hear(ends[1], &message, handed, 1), -ETIMEDOUT);
    assert_int_equal(write(ends[0], "x", 1), 1);
    assert_int_equal(succession_hear(ends[1], &message, handed, 1000), -EPIPE);
    close(ends[0]);
    assert_int_equal(succession_hear(ends[1], &message, handed, 1000), -EPIPE);
    assert_int_equal(succession_say(ends[1], WORD_KNOWN, 0), -EPIPE);
    close(ends[1]);
}

/* ---- the environment ---------------------------------------------------------------------------
 */

static void test_what_is_in_the_environment_comes_out(void **state)
{
    char variable[SUCCESSION_VARIABLE];
    int descriptors[SUCCESSION_DESCRIPTORS];
    struct succession given = succession_none(ROLE_UPGRADED), found;
    (void)state;
    given.talk = open("/dev/null", O_RDWR);
    given.handed[HANDED_KEEP] = open("/dev/null", O_RDWR);
    given.old[2] = open("/dev/null", O_RDWR);
    given.generation = UINT32_MAX;
    given.daemon = 4194304;
    given.foreground = true;
    assert_int_equal(succession_descriptors(&given, descriptors), 3);
    succession_write(&given, variable);
    putenv(variable);
    assert_int_equal(succession_role(), ROLE_UPGRADED);
    assert_true(succession_take(&found));
    assert_memory_equal(found.handed, given.handed, sizeof given.handed);
    assert_memory_equal(found.old, given.old, sizeof given.old);
    assert_int_equal(found.talk, given.talk);
    assert_int_equal(found.generation, given.generation);
    assert_int_equal(found.daemon, given.daemon);
    assert_true(found.foreground);
    assert_int_equal(fcntl(found.talk, F_GETFD), FD_CLOEXEC);
    assert_null(getenv(NAME));
    assert_int_equal(succession_role(), ROLE_NONE);
    for (unsigned i = 0; i < 3; i++)
        close(descriptors[i]);
}

static void test_what_is_no_role_is_none(void **state)
{
    static const char *const texts[] = {"", "x", "0", "-1", "99", "99999999999999999999", ","};
    struct succession found;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        setenv(NAME, texts[i], 1);
        assert_int_equal(succession_role(), ROLE_NONE);
        assert_false(succession_take(&found));
    }
    unsetenv(NAME);
}

static void test_what_is_no_descriptor_is_none(void **state)
{
    static const char *const texts[] = {"1", "1,", "1,-5,99999,x,,", "1,123456789012345678901,x1e9",
                                        "1,,,,,,,,,,,,,,,,,,,,"};
    struct succession found;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        setenv(NAME, texts[i], 1);
        assert_true(succession_take(&found));
        for (unsigned k = 0; k < HANDED_COUNT; k++)
            assert_int_equal(found.handed[k], -1);
    }
}

/* ---- how it was started ------------------------------------------------------------------------
 */

static struct unshard_keep *make_keep(void)
{
    struct unshard_keep *keep;
    struct unshard_error error;
    assert_int_equal(unshard_keep_new(life_area_bytes(), &keep, &error), 0);
    return keep;
}

static struct start sample(unsigned argc)
{
    struct start start = {.given = true,
                          .private = true,
                          .terminal = true,
                          .number = 3,
                          .connection = 77,
                          .directory = "/somewhere",
                          .source = "/models/a b",
                          .mountpoint = "/mnt/m",
                          .shown = "",
                          .argc = argc};
    for (unsigned i = 0; i < argc && i < START_ARGUMENTS; i++)
        start.argv[i] = i % 2 ? "" : "an argument";
    return start;
}

static void test_how_it_was_started_is_found(void **state)
{
    static const unsigned counts[] = {1, 5, START_ARGUMENTS};
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct unshard_keep *keep = make_keep();
        struct start given = sample(counts[i]), found;
        assert_int_equal(start_read(keep, &found), -ENOENT);
        assert_int_equal(start_keep(keep, &given), 0);
        assert_int_equal(start_read(keep, &found), 0);
        assert_string_equal(found.source, given.source);
        assert_string_equal(found.shown, given.shown);
        assert_true(found.given && found.private && found.terminal);
        assert_false(found.visible || found.first_group);
        assert_int_equal(found.argc, given.argc);
        for (unsigned k = 0; k < found.argc; k++)
            assert_string_equal(found.argv[k], given.argv[k]);
        assert_null(found.argv[found.argc]);
        unshard_keep_close(keep);
    }
}

static void test_too_many_arguments_are_refused(void **state)
{
    struct unshard_keep *keep = make_keep();
    struct start given = sample(START_ARGUMENTS);
    (void)state;
    given.argc++;
    assert_int_equal(start_keep(keep, &given), -E2BIG);
    unshard_keep_close(keep);
}

static int find_record(void *context, void *record, size_t bytes)
{
    *(struct kept_start **)context = record;
    (void)bytes;
    return 1;
}

static void test_a_damaged_record_is_refused(void **state)
{
    static const uint32_t counts[] = {0, START_ARGUMENTS + 1, 200, UINT32_MAX};
    struct unshard_keep *keep = make_keep();
    struct start given = sample(2), found;
    struct kept_start *record = NULL;
    (void)state;
    assert_int_equal(start_keep(keep, &given), 0);
    unshard_keep_each(keep, UNSHARD_KEEP_START, find_record, &record);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        record->argc = counts[i];
        assert_int_equal(start_read(keep, &found), -EPROTO);
    }
    record->argc = 2;
    assert_int_equal(start_read(keep, &found), 0);
    memset(record->strings, 'x', unshard_keep_size(record) - sizeof *record);
    assert_int_equal(start_read(keep, &found), -EPROTO);
    unshard_keep_close(keep);
}

/* ---- who lives ---------------------------------------------------------------------------------
 */

/* A daemon that lives until it is killed. */
static pid_t start_life(struct life *life, unsigned generation)
{
    int ends[2];
    char lives = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t process = fork();
    if (process == 0) {
        if (life_begin(life, generation) == 0 && write(ends[1], "", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    assert_int_equal(read(ends[0], &lives, 1), 1);
    close(ends[0]);
    close(ends[1]);
    return process;
}

static void test_a_death_is_told(void **state)
{
    struct unshard_keep *keep = make_keep();
    struct life *life = life_of(keep);
    (void)state;
    assert_true(life_has_ended(life, 0));
    for (unsigned generation = 0; generation < 2 * LIFE_GENERATIONS + 1; generation++) {
        pid_t process = start_life(life, generation);
        assert_false(life_has_ended(life, generation));
        kill(process, SIGKILL);
        life_wait_for_end(life, generation);
        assert_true(life_has_ended(life, generation));
        waitpid(process, NULL, 0);
        assert_int_equal(life_crash(life, generation), 0);
    }
    unshard_keep_close(keep);
}

static void note_crash(void *context)
{
    atomic_store((_Atomic uint32_t *)context, 1);
}

static void test_a_crash_is_noted(void **state)
{
    struct unshard_keep *keep = make_keep();
    struct life *life = life_of(keep);
    int status;
    (void)state;
    pid_t process = fork();
    if (process == 0) {
        life_begin(life, 1);
        life_note_crashes(life, 1, note_crash, &life->restarts);
        raise(SIGABRT);
        _exit(0);
    }
    assert_int_equal(waitpid(process, &status, 0), process);
    assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0));
    assert_int_equal(life_crash(life, 1), SIGABRT);
    assert_int_equal(life->restarts, 1);
    life->crash[1] = 4000000000; /* of a process that ran wild */
    assert_int_equal(life_crash(life, 1), 0);
    unshard_keep_close(keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_and_descriptors),
        cmocka_unit_test(test_what_makes_no_sense_is_not_heard),
        cmocka_unit_test(test_what_is_in_the_environment_comes_out),
        cmocka_unit_test(test_what_is_no_role_is_none),
        cmocka_unit_test(test_what_is_no_descriptor_is_none),
        cmocka_unit_test(test_how_it_was_started_is_found),
        cmocka_unit_test(test_too_many_arguments_are_refused),
        cmocka_unit_test(test_a_damaged_record_is_refused),
        cmocka_unit_test(test_a_death_is_told),
        cmocka_unit_test(test_a_crash_is_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
