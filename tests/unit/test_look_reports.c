/* SPDX-License-Identifier: MIT
 *
 * What the log says of looks that hang, with a publisher whose looks are those of a table. */
#include "engine/engine_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST 20

static struct unshard_stuck_look table[MOST];
static uint32_t count;
static char lines[4096];

static void tell_looks(void *context, struct unshard_looks *out)
{
    (void)context;
    out->stalled = out->stuck_count = count;
    out->stuck = count > 0 ? malloc(sizeof table) : NULL;
    if (out->stuck != NULL)
        memcpy(out->stuck, table, sizeof table);
}

static void take_line(void *context, int priority, const char *line)
{
    size_t used = strlen(lines);
    (void)context;
    snprintf(lines + used, sizeof lines - used, "%d %s\n", priority, line);
}

static struct unshard_engine engine = {
    .publisher = {.looks = tell_looks, .log = take_line},
};

/* What is said when these hang; each is "NAME SECONDS". */
static void assert_says(const char *expected, uint32_t hang, ...)
{
    va_list arguments;
    va_start(arguments, hang);
    count = hang;
    for (uint32_t i = 0; i < hang; i++) {
        table[i].directory = va_arg(arguments, const char *);
        table[i].seconds = va_arg(arguments, double);
    }
    va_end(arguments);
    lines[0] = '\0';
    look_reports_update(&engine);
    assert_string_equal(lines, expected);
}

static void test_each_is_told_once_and_its_end(void **state)
{
    (void)state;
    assert_says("", 0);
    assert_says("", 2, "one", 9.9, "two", 3.0);
    assert_says("4 event=look-stuck directory=\"one\" seconds=12\n", 2, "one", 11.9, "two", 5.0);
    assert_says("4 event=look-stuck directory=\"t\\\"wo\" seconds=10\n", 2, "one", 16.9, "t\"wo",
                10.0);
    assert_says("", 2, "one", 18.9, "t\"wo", 12.0);
    assert_says("5 event=look-ended directory=\"one\" seconds=19\n", 1, "t\"wo", 14.0);
    assert_says("5 event=look-ended directory=\"t\\\"wo\" seconds=14\n", 0);
    assert_says("", 0);
}

/* One that begins before it is seen that the last one has ended is another one. */
static void test_the_next_look_at_it_is_another(void **state)
{
    (void)state;
    assert_says("4 event=look-stuck directory=\".\" seconds=10\n", 1, ".", 10.0);
    assert_says("5 event=look-ended directory=\".\" seconds=10\n", 1, ".", 2.1);
    assert_says("4 event=look-stuck directory=\".\" seconds=11\n", 1, ".", 11.0);
    look_reports_free(&engine.look_reports);
    assert_int_equal(engine.look_reports.count, 0);
}

static void test_a_bound(void **state)
{
    static char names[MOST][8];
    (void)state;
    count = MOST;
    for (unsigned i = 0; i < MOST; i++) {
        snprintf(names[i], sizeof names[i], "%u", i);
        table[i] = (struct unshard_stuck_look){names[i], 100 - i};
    }
    look_reports_update(&engine);
    assert_int_equal(engine.look_reports.count, MOST_LOOKS_REPORTED);
    lines[0] = '\0';
    look_reports_update(&engine);
    assert_string_equal(lines, "");
    look_reports_free(&engine.look_reports);
}

static void test_who_has_no_looks(void **state)
{
    (void)state;
    struct unshard_engine other = {.publisher = {.log = take_line}};
    look_reports_update(&other);
    assert_int_equal(other.look_reports.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_told_once_and_its_end),
        cmocka_unit_test(test_the_next_look_at_it_is_another),
        cmocka_unit_test(test_a_bound),
        cmocka_unit_test(test_who_has_no_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
