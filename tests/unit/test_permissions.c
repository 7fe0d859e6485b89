/* SPDX-License-Identifier: MIT
 *
 * Permissions of what is made of two files, over all read bits, a few owners, groups and users. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tree/permissions.h"

#include <stdbool.h>

/* groups: a bit for each. As the kernel does it: the first class that a user is in decides. */
static bool may_read(const struct permissions *of, uid_t user, unsigned groups)
{
    if (of->uid == user)
        return of->mode & S_IRUSR;
    return of->mode & (groups >> of->gid & 1U ? S_IRGRP : S_IROTH);
}

static struct permissions nth(unsigned n)
{
    mode_t mode = (n & 4U ? S_IRUSR : 0) | (n & 2U ? S_IRGRP : 0) | (n & 1U ? S_IROTH : 0);
    return (struct permissions){.uid = n / 8 % 3, .gid = n / 24 % 2, .mode = mode};
}

static void test_nobody_gains(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 48 * 48; i++) {
        struct permissions a = nth(i / 48), b = nth(i % 48), both = permissions_of_both(&a, &b);
        for (uid_t user = 0; user < 4; user++)
            for (unsigned groups = 0; groups < 8; groups++)
                assert_true(!may_read(&both, user, groups) ||
                            (may_read(&a, user, groups) && may_read(&b, user, groups)));
    }
}

static void test_usual_mixtures_stay_readable(void **state)
{
    (void)state;
    struct permissions a = {1, 1, 0640}, b = {1, 1, 0600}, c = {2, 1, 0640}, d = {2, 2, 0644};
    struct permissions both = permissions_of_both(&a, &b);
    assert_true(both.uid == 1 && both.gid == 1 && both.mode == 0600);
    both = permissions_of_both(&a, &c); /* the group of both reads it */
    assert_true(both.gid == 1 && (both.mode & S_IRGRP));
    both = permissions_of_both(&a, &d); /* and so does the owner of the narrower one */
    assert_true(may_read(&both, 1, 0) && may_read(&both, 3, 1U << 1));
    a.mode = 0644;
    both = permissions_of_both(&a, &d);
    assert_true((both.mode & 0444) == 0444);
}

/* The class of a directory whose rights the kernel gives to a user in these groups. */
static unsigned class_of(const struct permissions *of, uid_t user, unsigned groups)
{
    return of->uid == user ? 6 : groups >> of->gid & 1U ? 3 : 0;
}

static void test_who_lists_a_directory(void **state)
{
    (void)state;
    for (mode_t mode = 0; mode <= 0777; mode++)
        for (unsigned n = 0; n < 2 * 3 * 8; n++) {
            struct permissions of = {.uid = n % 2, .gid = n / 2 % 3, .mode = mode};
            gid_t others[3];
            struct unshard_user user = {.uid = 1, .gid = 0, .groups = others};
            unsigned groups = n / 6 | 1U; /* the first is his own */
            for (gid_t gid = 1; gid < 3; gid++)
                if (groups >> gid & 1U)
                    others[user.group_count++] = gid;
            bool may = (mode >> class_of(&of, 1, groups) & 5U) == 5U;
            user.groups_known = true;
            assert_int_equal(permissions_let_list(&of, &user), may);
            /* In whichever groups he is besides. */
            user.groups_known = false;
            if (permissions_let_list(&of, &user))
                for (unsigned more = 0; more < 8; more++)
                    assert_int_equal(mode >> class_of(&of, 1, groups | more) & 5U, 5);
        }
    struct permissions open = {.uid = 0, .gid = 9, .mode = 0755};
    assert_true(permissions_let_list(&open, &(struct unshard_user){.uid = 1}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_gains),
        cmocka_unit_test(test_usual_mixtures_stay_readable),
        cmocka_unit_test(test_who_lists_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
