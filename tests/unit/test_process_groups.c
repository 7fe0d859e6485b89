/* SPDX-License-Identifier: MIT
 *
 * The groups of a process, from what /proc says of it. */
#include "fs/host/process_groups.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#define STATUS(groups)                                                            \
    "Name:\tGroups:\\nUid:\nPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:" \
    "\t64\nGroups:" groups "NStgid:\t7\n"

static void test_what_is_told(void **state)
{
    (void)state;
    gid_t *groups;
    unsigned count;
    assert_int_equal(process_groups_parse(STATUS("\t8 27 65534 \n"), 4, 8, &groups, &count), 0);
    assert_int_equal(count, 3);
    assert_true(groups[0] == 8 && groups[1] == 27 && groups[2] == 65534);
    free(groups);
    assert_int_equal(process_groups_parse(STATUS("\t4294967294 \n"), 4, 8, &groups, &count), 0);
    assert_true(count == 1 && groups[0] == (gid_t)-2);
    free(groups);
    assert_int_equal(process_groups_parse(STATUS("\t \n"), 4, 8, &groups, &count), 0);
    assert_true(count == 0 && groups == NULL);
}

static void test_somebody_else(void **state)
{
    (void)state;
    gid_t *groups;
    unsigned count;
    const char *text = STATUS("\t8 27 \n");
    assert_int_equal(process_groups_parse(text, 1, 8, &groups, &count), -ESRCH);
    assert_int_equal(process_groups_parse(text, 4, 5, &groups, &count), -ESRCH);
    assert_true(count == 0 && groups == NULL);
}

static void test_what_is_cut_or_odd(void **state)
{
    (void)state;
    const char *text = STATUS("\t8 27 \n");
    size_t end = strlen(text) - strlen("NStgid:\t7\n");
    for (size_t length = 0; length < end; length++) {
        char *cut = strndup(text, length);
        gid_t *groups;
        unsigned count;
        assert_true(process_groups_parse(cut, 4, 8, &groups, &count) < 0);
        assert_true(count == 0 && groups == NULL);
        free(cut);
    }
    gid_t *groups;
    unsigned count;
    assert_int_equal(process_groups_parse(STATUS("\t8 -27 \n"), 4, 8, &groups, &count), -EBADMSG);
}

static void test_this_process(void **state)
{
    (void)state;
    gid_t *groups, own[1024];
    unsigned count;
    int known = getgroups(1024, own);
    assert_int_equal(process_groups_read(getpid(), geteuid(), getegid(), &groups, &count), 0);
    assert_int_equal(count, known);
    for (int i = 0; i < known; i++) {
        bool found = false;
        for (unsigned k = 0; k < count; k++)
            found = found || groups[k] == own[i];
        assert_true(found);
    }
    free(groups);
    assert_true(process_groups_read(getpid(), geteuid() + 1, getegid(), &groups, &count) < 0);
    assert_true(process_groups_read(0, geteuid(), getegid(), &groups, &count) < 0);
    assert_true(process_groups_read(INT32_MAX, geteuid(), getegid(), &groups, &count) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_told),
        cmocka_unit_test(test_somebody_else),
        cmocka_unit_test(test_what_is_cut_or_odd),
        cmocka_unit_test(test_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
