/* SPDX-License-Identifier: MIT
 *
 * Who opens a status file: who is told of all, and who may be given what was made for another. */
#include "fs/host/process_groups.c"
#include "fs/kernel/status_reader.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Instead of libfuse: a request is who sent it. */
const struct fuse_ctx *fuse_req_ctx(fuse_req_t request)
{
    return (const struct fuse_ctx *)request;
}

static struct status_reader find_reader(struct fuse_ctx context)
{
    struct status_reader reader;
    assert_int_equal(status_reader_find((struct fuse_req *)&context, &reader), 0);
    return reader;
}

static void test_who_is_told_of_all(void **state)
{
    (void)state;
    const uid_t other = geteuid() + 1;
    assert_true(find_reader((struct fuse_ctx){.uid = 0}).all);
    assert_true(find_reader((struct fuse_ctx){.uid = geteuid()}).all);
    assert_false(find_reader((struct fuse_ctx){.uid = other}).all);
}

/* A number that leads to nobody, or to somebody else, tells of no groups. */
static void test_groups_that_are_not_known(void **state)
{
    (void)state;
    const pid_t processes[] = {0, -1, INT32_MAX, getpid()};
    for (size_t i = 0; i < sizeof processes / sizeof processes[0]; i++) {
        struct status_reader reader =
            find_reader((struct fuse_ctx){.uid = geteuid() + 1, .gid = 7, .pid = processes[i]});
        assert_true(reader.user.uid == geteuid() + 1 && reader.user.gid == 7);
        assert_false(reader.user.groups_known);
        assert_int_equal(reader.user.group_count, 0);
        status_reader_free(&reader);
    }
}

static void test_who_is_the_same(void **state)
{
    (void)state;
    static const gid_t one[] = {5, 6}, same[] = {5, 6}, other[] = {5, 7};
    const struct status_reader readers[] = {{{1000, 1000, one, 2, true}, false},
                                            {{1001, 1000, one, 2, true}, false},
                                            {{1000, 1001, one, 2, true}, false},
                                            {{1000, 1000, other, 2, true}, false},
                                            {{1000, 1000, one, 1, true}, false},
                                            {{1000, 1000, NULL, 0, true}, false},
                                            {{1000, 1000, NULL, 0, false}, false},
                                            {{.uid = 1000}, true},
                                            {{.uid = 1001}, true}};
    const size_t count = sizeof readers / sizeof readers[0];
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++)
            assert_int_equal(status_reader_is(&readers[i], &readers[k]), i == k);
    const struct status_reader again = {{1000, 1000, same, 2, true}, false};
    assert_true(status_reader_is(&readers[0], &again));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_told_of_all),
        cmocka_unit_test(test_groups_that_are_not_known),
        cmocka_unit_test(test_who_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
