/* SPDX-License-Identifier: MIT
 *
 * Names and messages are escaped once, by whoever makes the message. */
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define HOSTILE "a\"b'c\\d\x1b[31m\n\xff\xc2\x9bz\xc3\xbc"

static void names_within_messages_lose_their_quotes(void **state)
{
    (void)state;
    char out[256];
    assert_string_equal(error_quote(out, sizeof out, HOSTILE, strlen(HOSTILE)),
                        "a\\x22b\\x27c\\x5cd\\x1b[31m\\x0a\\xff\\xc2\\x9bz\xc3\xbc");
}

static void messages_are_printable_and_stay_so(void **state)
{
    (void)state;
    static const char expected[] = "a\"b'c\\d\\x1b[31m\\x0a\\xff\\xc2\\x9bz\xc3\xbc";
    char out[256], again[256];
    struct unshard_error error;
    assert_string_equal(error_printable(out, sizeof out, HOSTILE, strlen(HOSTILE)), expected);
    assert_string_equal(error_printable(again, sizeof again, out, strlen(out)), expected);
    error_set(&error, "code", 0, "%s", HOSTILE);
    assert_string_equal(error.message, expected);
    error_set(&error, "code", 0, "%s", error.message);
    assert_string_equal(error.message, expected);
}

static void fields_end_where_they_end(void **state)
{
    (void)state;
    char out[256];
    assert_string_equal(error_field(out, sizeof out, "tensor \"a\\x22b\"\n"),
                        "tensor \\\"a\\x22b\\\"\\x0a");
}

static void what_does_not_fit_ends_with_dots(void **state)
{
    (void)state;
    char out[8], longer[2000];
    struct unshard_error error;
    assert_string_equal(error_printable(out, sizeof out, "1234567", 7), "1234567");
    assert_string_equal(error_printable(out, sizeof out, "12345678", 8), "1234...");
    assert_string_equal(error_printable(out, sizeof out, "123\n5678", 8), "123...");
    assert_string_equal(error_printable(out, 1, "1", 1), "");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    error_set(&error, "code", 0, "%s", longer);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_string_equal(error.message + sizeof error.message - 5, "x...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_within_messages_lose_their_quotes),
        cmocka_unit_test(messages_are_printable_and_stay_so),
        cmocka_unit_test(fields_end_where_they_end),
        cmocka_unit_test(what_does_not_fit_ends_with_dots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
