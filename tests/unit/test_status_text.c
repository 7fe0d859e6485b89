/* SPDX-License-Identifier: MIT
 *
 * The status as text: what a person must find in it, and what no input may do to it. */
#include "base/text.h"
#include "unshard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char small[] =
    "{\"schema\":1,\"version\":\"0.1.0\",\"pid\":7,\"source\":\"/models/flux\","
    "\"mountpoint\":\"/mnt/flux\",\"state\":\"degraded\",\"time\":\"2026-11-24T10:00:00Z\","
    "\"bytes_total\":4294967296,\"bytes_published\":1073741824,\"rate_bytes_per_second\":5e8,"
    "\"jobs\":8,\"in_flight\":3,\"buffer_bytes\":268435456,\"buffer_used_bytes\":6291456,"
    "\"readers\":1,\"paused_reason\":\"window full\",\"errors\":1,\"notes\":[\"a note\"],"
    "\"components\":[{\"name\":\"vae\",\"state\":\"failed\",\"bytes_total\":100,"
    "\"bytes_published\":0,\"error\":{\"code\":\"x\",\"message\":\"repeats the shard\"},"
    "\"notes\":[\"odd dtype\"],\"shards\":[{\"file\":\"vae/m-00001-of-00002.safetensors\","
    "\"state\":\"failed\",\"bytes_total\":100,\"bytes_read\":50,\"error\":{\"code\":\"truncated\","
    "\"message\":\"ends early\",\"offset\":50,\"errno\":5,\"time\":null}},"
    "{\"file\":\"vae/m-00002-of-00002.safetensors\",\"state\":\"verified\",\"bytes_total\":10,"
    "\"bytes_read\":10,\"error\":null}]}]}";

static char *text_of(const char *json, unsigned width)
{
    struct unshard_status *status = unshard_status_parse(json);
    assert_non_null(status);
    char *text = unshard_status_text(status, width);
    unshard_status_free(status);
    assert_non_null(text);
    return text;
}

static char *summary_of(const char *json)
{
    struct unshard_status *status = unshard_status_parse(json);
    assert_non_null(status);
    char *line = unshard_status_summary(status);
    unshard_status_free(status);
    assert_non_null(line);
    return line;
}

static unsigned line_count(const char *text)
{
    unsigned lines = 0;
    for (; (text = strchr(text, '\n')); text++)
        lines++;
    return lines;
}

static size_t longest_line(const char *text)
{
    size_t longest = 0;
    while (*text) {
        size_t length = strcspn(text, "\n");
        longest = length > longest ? length : longest;
        text += length + (text[length] == '\n');
    }
    return longest;
}

static void test_errors_come_first(void **state)
{
    (void)state;
    char *text = text_of(small, 0);
    assert_memory_equal(text, "ERRORS\n", 7);
    assert_non_null(strstr(text, "  vae/m-00001-of-00002.safetensors: ends early "
                                 "(truncated, offset 50, EIO)\n"));
    assert_null(strstr(text, "repeats the shard"));
    assert_non_null(strstr(text, "/models/flux on /mnt/flux\n"));
    assert_non_null(
        strstr(text, "degraded: 1.0 GiB of 4.0 GiB (25 %), 500 MB/s, 6 s left, 1 error"));
    assert_non_null(strstr(text, "paused: window full\n"));
    assert_non_null(strstr(text, "  note: odd dtype\n"));
    assert_non_null(strstr(text, "\nnote: a note\n"));
    assert_null(strstr(text, "[#"));
    free(text);
}

static void test_bars_fit_the_terminal(void **state)
{
    (void)state;
    for (unsigned width = 70; width <= 200; width += 13) {
        char *text = text_of(strstr(small, "{"), width);
        assert_non_null(strstr(text, "##"));
        /* Errors and prose wrap; lines with bars must not. */
        const char *component = strstr(text, "\n\nvae");
        assert_non_null(component);
        assert_true(longest_line(component) <= width);
        free(text);
    }
}

/* A checkpoint of `count` shards of which `failed` fail and two are being read. */
static char *many_shards(unsigned count, unsigned failed)
{
    struct text json = {0};
    text_append_string(&json, "{\"schema\":1,\"components\":[{\"name\":\"model\",\"shards\":[");
    for (unsigned i = 0; i < count; i++)
        text_printf(&json,
                    "%s{\"file\":\"m-%05u-of-%05u.safetensors\",\"state\":\"%s\",\"error\":%s}",
                    i ? "," : "", i + 1, count,
                    i < failed       ? "failed"
                    : i < failed + 2 ? "reading"
                                     : "verified",
                    i < failed ? "{\"code\":\"missing\",\"message\":\"gone\"}" : "null");
    text_append_string(&json, "]}]}");
    return text_take(&json);
}

static void test_many_shards_stay_readable(void **state)
{
    (void)state;
    char *json = many_shards(200, 0), *text = text_of(json, 80);
    assert_true(line_count(text) < 12);
    assert_non_null(strstr(text, "200 shards: 2 reading, 198 verified\n"));
    assert_non_null(strstr(text, "m-00002-of-00200"));
    assert_null(strstr(text, "m-00003-of-00200"));
    free(text);
    free(json);
    json = many_shards(200, 3);
    text = text_of(json, 80);
    assert_non_null(strstr(text, "  m-00003-of-00200.safetensors: gone (missing)\n"));
    assert_non_null(strstr(text, "200 shards: 3 failed, 2 reading, 195 verified\n"));
    free(text);
    free(json);
    json = many_shards(20, 0);
    text = text_of(json, 80);
    assert_non_null(strstr(text, "m-00020-of-00020"));
    free(text);
    free(json);
}

static void test_bad_input(void **state)
{
    (void)state;
    assert_null(unshard_status_parse(""));
    assert_null(unshard_status_parse("[]"));
    assert_null(unshard_status_parse("{}"));
    assert_null(unshard_status_parse("{\"schema\":2}"));
    assert_null(unshard_status_parse("{\"schema\":\"1\"}"));
    static const char *const odd[] = {
        "{\"schema\":1}",
        "{\"schema\":1,\"components\":{},\"notes\":3}",
        "{\"schema\":1,\"components\":[null,3,[],{\"shards\":[null,{\"error\":{}}]}]}",
        "{\"schema\":1,\"bytes_total\":1e400,\"bytes_published\":-5,\"errors\":1e30,\"jobs\":1e99}",
        "{\"schema\":1,\"restarts\":1e99,\"restart_time\":7,\"restart_reason\":[]}",
        "{\"schema\":1,\"rate_bytes_per_second\":1e300,\"bytes_total\":1e30}",
        "{\"schema\":1,\"bytes_total\":9e30,\"rate_bytes_per_second\":1,\"components\":"
        "[{\"error\":{\"offset\":1e300,\"errno\":1e9,\"time\":7}}]}",
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        for (unsigned width = 0; width < 300; width += 37)
            free(text_of(odd[i], width));
        free(summary_of(odd[i]));
    }
}

static void test_names_cannot_drive_the_terminal(void **state)
{
    (void)state;
    char *text = text_of("{\"schema\":1,\"source\":\"\\u001b[2J\\n\",\"state\":\"\\u001b\","
                         "\"restarts\":1,\"restart_reason\":\"\\u001b\","
                         "\"components\":[{\"name\":\"\\u001b]0;x\\u0007\",\"error\":{\"code\":"
                         "\"\\u001b\",\"message\":\"\\u001b\"}}],\"notes\":[\"\\u001b\"]}",
                         80);
    assert_null(strchr(text, '\033'));
    assert_null(strchr(text, '\007'));
    free(text);
}

static void test_summary_is_one_line(void **state)
{
    (void)state;
    char *line = summary_of(small);
    assert_string_equal(line,
                        "2026-11-24T10:00:00Z /models/flux degraded: 1.0 GiB of 4.0 GiB (25 %), "
                        "500 MB/s, 6 s left, 1 error, paused: window full; vae 0 % failed");
    free(line);
}

/* Components of which `failed` fail, two are being read and the last ten are pending. */
static struct unshard_status *many_components(unsigned count, unsigned failed)
{
    struct text json = {0};
    text_append_string(&json, "{\"schema\":1,\"state\":\"degraded\",\"source\":\"/m\","
                              "\"errors\":1,\"components\":[");
    for (unsigned i = 0; i < count; i++) {
        const char *is = i < failed       ? "failed"
                         : i < failed + 2 ? "reading"
                         : i + 10 < count ? "verified"
                                          : "pending";
        text_printf(&json,
                    "%s{\"name\":\"c%u\",\"state\":\"%s\",\"bytes_total\":9,\"bytes_published\":%u,"
                    "\"shards\":[{\"file\":\"s%u\",\"state\":\"%s\",\"error\":%s},"
                    "{\"file\":\"t%u\",\"state\":\"%s\"}]}",
                    i ? "," : "", i, is, strcmp(is, "verified") == 0 ? 9 : 3, i, is,
                    i < failed ? "{\"code\":\"missing\",\"message\":\"is gone\"}" : "null", i, is);
    }
    text_append_string(&json, "]}");
    char *string = text_take(&json);
    struct unshard_status *status = unshard_status_parse(string);
    assert_non_null(status);
    free(string);
    return status;
}

/* Without the colours, after having checked that nothing else is there. */
static void strip_colours(char *text)
{
    char *out = text;
    while (*text) {
        if (*text == '\033') {
            assert_int_equal(text[1], '[');
            text += 2 + strspn(text + 2, "0123456789;");
            assert_int_equal(*text++, 'm');
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

static char *picture_of(const struct unshard_status *status, unsigned columns, unsigned rows)
{
    struct unshard_screen screen = {columns, rows, true};
    char *text = unshard_status_picture(status, &screen);
    assert_non_null(text);
    strip_colours(text);
    return text;
}

static void test_a_picture_is_the_text_in_colours(void **state)
{
    (void)state;
    struct unshard_status *status = unshard_status_parse(small);
    char *picture = picture_of(status, 100, 0), *text = unshard_status_text(status, 100);
    assert_string_equal(picture, text);
    free(picture);
    struct unshard_screen screen = {100, 0, false};
    picture = unshard_status_picture(status, &screen);
    assert_string_equal(picture, text);
    free(picture);
    screen.colours = true;
    picture = unshard_status_picture(status, &screen);
    assert_non_null(strstr(picture, "] 100 % of       10 B  \033[32mverified\033[0m\n"));
    free(picture);
    free(text);
    unshard_status_free(status);
}

static void test_a_picture_fits_its_screen(void **state)
{
    (void)state;
    struct unshard_status *status = many_components(60, 4);
    for (unsigned rows = 1; rows < 300; rows++) {
        char *text = picture_of(status, 72, rows);
        assert_true(longest_line(text) <= 72);
        assert_true(line_count(text) <= rows);
        assert_memory_equal(text, "ERRORS\n", rows < 7 ? 0 : 7);
        free(text);
    }
    unshard_status_free(status);
}

static void test_a_picture_tells_of_what_is_not_done_first(void **state)
{
    (void)state;
    struct unshard_status *status = many_components(60, 4);
    char *text = picture_of(status, 72, 260);
    assert_non_null(strstr(text, "\n  t30 ")); /* all there is */
    free(text);
    text = picture_of(status, 72, 120);
    assert_non_null(strstr(text, "\nc30 ")); /* what is done in a line */
    assert_null(strstr(text, "\n  t30 "));
    assert_non_null(strstr(text, "\n  t4 "));
    free(text);
    text = picture_of(status, 72, 75);
    assert_null(strstr(text, "\nc30 "));
    assert_non_null(strstr(text, "\n  t4 "));
    assert_non_null(strstr(text, "\nand 44 components that are done\n"));
    free(text);
    text = picture_of(status, 72, 20);
    assert_non_null(strstr(text, "  and 1 more\n")); /* errors */
    assert_non_null(strstr(text, "\nc0 "));
    assert_string_equal(text + strlen(text) - 5, "\n...\n");
    free(text);
    unshard_status_free(status);
}

static void test_long_errors_go_on_in_the_next_row(void **state)
{
    (void)state;
    char *text = text_of("{\"schema\":1,\"components\":[{\"name\":\"c\",\"error\":{\"code\":\"x\","
                         "\"message\":\"one two three four five six seven eight nine ten\"}}]}",
                         24);
    assert_memory_equal(text, "ERRORS\n  c: one two three four\n    five six seven eight\n", 53);
    free(text);
}

static void test_human(void **state)
{
    (void)state;
    char out[UNSHARD_HUMAN_CAPACITY];
    assert_string_equal(unshard_human_bytes(out, 0), "0 B");
    assert_string_equal(unshard_human_bytes(out, 1023), "1023 B");
    assert_string_equal(unshard_human_bytes(out, 1048575), "1.0 MiB");
    assert_string_equal(unshard_human_bytes(out, UINT64_MAX), "16.0 EiB");
    assert_string_equal(unshard_human_rate(out, 1.92e9), "1.92 GB/s");
    assert_string_equal(unshard_human_duration(out, 200), "3 min 20 s");
    assert_string_equal(unshard_human_duration(out, 7500), "2 h 05 min");
    assert_int_equal(unshard_human_percent(UINT64_MAX - 1, UINT64_MAX), 99);
    assert_int_equal(unshard_human_percent(0, 0), 100);
    assert_string_equal(unshard_human_bar(out, sizeof out, 4, 1, 2), "[##..]");
    assert_string_equal(unshard_human_bar(out, 5, 40, 1, 2), "[#.]");
    assert_string_equal(unshard_human_tail("abc\xc3\xa9"
                                           "d",
                                           2),
                        "\xc3\xa9"
                        "d");
    assert_string_equal(unshard_human_tail("abc", 0), "");
    assert_string_equal(unshard_human_tail("abc", 9), "abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_come_first),
        cmocka_unit_test(test_bars_fit_the_terminal),
        cmocka_unit_test(test_many_shards_stay_readable),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_names_cannot_drive_the_terminal),
        cmocka_unit_test(test_summary_is_one_line),
        cmocka_unit_test(test_a_picture_is_the_text_in_colours),
        cmocka_unit_test(test_a_picture_fits_its_screen),
        cmocka_unit_test(test_a_picture_tells_of_what_is_not_done_first),
        cmocka_unit_test(test_long_errors_go_on_in_the_next_row),
        cmocka_unit_test(test_human),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
