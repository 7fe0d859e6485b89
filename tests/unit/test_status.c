/* SPDX-License-Identifier: MIT
 *
 * All renderings of one status that is made by hand, without an engine, and the way back from JSON.
 */
#include "unshard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

static const struct unshard_error problem = {
    .code = "bad-list", .offset = UNSHARD_NO_OFFSET, .message = "SHA256SUMS: line 3 says nothing"};
static const struct unshard_error truncated = {.code = "truncated",
                                               .errno_value = 5,
                                               .offset = 50,
                                               .time = 1795514400,
                                               .message = "vae/s-2.safetensors: ends at byte 50"};
static const struct unshard_error unreadable = {
    .code = "missing", .offset = UNSHARD_NO_OFFSET, .message = "te: shard 2 is not there"};
static const struct unshard_error changed = {
    .code = "changed", .offset = UNSHARD_NO_OFFSET, .message = "config.json: is not what it was"};
static const struct unshard_mismatch mismatch = {"sha256", "00ff", "11ee", "SHA256SUMS line 1"};

static const struct unshard_file_status files[] = {
    {"config.json", NULL, UNSHARD_STATE_FAILED, 10, 0, 0, 0, "md5", "hub", &changed, NULL},
    {"vae/s-1.safetensors", "vae", UNSHARD_STATE_VERIFIED, 3 * MIB, 3 * MIB, 2 * MIB, 1.5, "sha256",
     "SHA256SUMS line 1", NULL, NULL},
    {"vae/s-2.safetensors", "vae", UNSHARD_STATE_FAILED, MIB, 50, 0, 0.25, "sha256",
     "SHA256SUMS line 2", &truncated, &mismatch},
    {"odd \xff\"\\\n/m.safetensors", ".", UNSHARD_STATE_PENDING, MIB, 0, 0, 0, NULL, NULL, NULL,
     NULL},
};
static const struct unshard_file_status *const all_files[] = {&files[0], &files[1], &files[2],
                                                              &files[3]};
static const char *const notes[] = {"a note", "another"};

static const struct unshard_component_status components[] = {
    {.name = "vae",
     .view = "vae/model.safetensors",
     .format = "safetensors",
     .state = UNSHARD_STATE_FAILED,
     .bytes_total = 4 * MIB,
     .bytes_published = 2 * MIB,
     .notes = notes,
     .shards = all_files + 1,
     .note_count = 1,
     .shard_count = 2},
    {.name = ".",
     .view = "odd \xff\"\\\n/model.safetensors",
     .format = "safetensors",
     .prefix = "model.",
     .state = UNSHARD_STATE_PENDING,
     .bytes_total = MIB,
     .evicted = true,
     .shards = all_files + 3,
     .shard_count = 1},
    {.name = "te", .format = "torch", .state = UNSHARD_STATE_FAILED, .error = &unreadable},
    {.name = "te", .format = "torch", .state = UNSHARD_STATE_UNVERIFIED},
};
static const struct unshard_stuck_read stuck[] = {{"vae/s-2.safetensors", 4096, 7.25}};

static struct unshard_stuck_look stuck_looks[] = {{"loras \xff", 5.5}, {".", 3}};
#define TWO_LOOKS                                                                   \
    {                                                                               \
        .stalled = 2, .oldest_seconds = 5.5, .stuck = stuck_looks, .stuck_count = 2 \
    }

static const struct unshard_status whole = {.version = "1.2.3",
                                            .pid = 77,
                                            .source = "/models/flux",
                                            .mountpoint = "/mnt/\"flux\"",
                                            .connection = 61,
                                            .restarts = 2,
                                            .restart_time = 1795514400,
                                            .restart_reason = "killed",
                                            .state = UNSHARD_MOUNT_DEGRADED,
                                            .time = 1795514401,
                                            .uptime_seconds = 12.345,
                                            .bytes_total = 5 * MIB,
                                            .bytes_published = 2 * MIB,
                                            .bytes_read = 3 * MIB,
                                            .rate_bytes_per_second = 2e6,
                                            .reading_seconds = 1.75,
                                            .workers = 6,
                                            .jobs = 4,
                                            .in_flight = 3,
                                            .stalled = 1,
                                            .oldest_request_seconds = 7.25,
                                            .chunk_bytes = 2 * MIB,
                                            .buffer_bytes = 256 * MIB,
                                            .buffer_used_bytes = 6 * MIB,
                                            .reads = 11,
                                            .readers = 1,
                                            .chunks_evicted = 1,
                                            .stuck = stuck,
                                            .looks = TWO_LOOKS,
                                            .verify = UNSHARD_VERIFY_ASYNC,
                                            .prefetch = UNSHARD_PREFETCH_FOLLOW,
                                            .paused_reason = "no room",
                                            .errors = 4,
                                            .components = components,
                                            .files = all_files,
                                            .problems = &problem,
                                            .notes = notes,
                                            .stuck_count = 1,
                                            .component_count = 4,
                                            .file_count = 4,
                                            .problem_count = 1,
                                            .note_count = 2};

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("no \"%s\" in:\n%s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part) != NULL)
        fail_msg("\"%s\" in:\n%s", part, text);
}

static void test_error_lines(void **state)
{
    (void)state;
    char *lines = unshard_status_errors(&whole);
    assert_string_equal(
        lines,
        "- component=\"-\" shard=\"-\" code=bad-list message=\"SHA256SUMS: line 3 says nothing\"\n"
        "- component=\"te\" shard=\"-\" code=missing message=\"te: shard 2 is not there\"\n"
        "- component=\"-\" shard=\"config.json\" code=changed "
        "message=\"config.json: is not what it was\"\n"
        "2026-11-24T10:00:00Z component=\"vae\" shard=\"vae/s-2.safetensors\" code=truncated "
        "offset=50 errno=5 message=\"vae/s-2.safetensors: ends at byte 50\"\n");
    free(lines);
    lines = unshard_status_errors(&(struct unshard_status){0});
    assert_string_equal(lines, "");
    free(lines);
}

static void test_digests(void **state)
{
    (void)state;
    char *text = unshard_status_digests(&whole);
    assert_string_equal(text, "sha256,md5");
    free(text);
    text =
        unshard_status_digests(&(struct unshard_status){.files = all_files + 3, .file_count = 1});
    assert_string_equal(text, "none");
    free(text);
}

static void test_text(void **state)
{
    (void)state;
    char *text = unshard_status_text(&whole, 0);
    static const char expected[] =
        "ERRORS\n"
        "  SHA256SUMS: line 3 says nothing (bad-list)\n"
        "  config.json: is not what it was (changed)\n"
        "  vae/s-2.safetensors: ends at byte 50 (truncated, offset 50, EIO, 2026-11-24T10:00:00Z)\n"
        "  te: shard 2 is not there (missing)\n"
        "\n"
        "/models/flux on /mnt/\"flux\"\n"
        "degraded: 2.0 MiB of 5.0 MiB (40 %), 2 MB/s, 2 s left, 4 errors\n"
        "3 shards: 1 failed, 1 pending, 1 verified\n"
        "paused: no room\n"
        "stalled: 1 request to the source; the oldest waits 7 s: vae/s-2.safetensors at offset "
        "4096\n"
        "stalled: 2 looks at directories; the oldest waits 6 s: loras \\xff\n"
        "3 of 4 jobs busy, buffers 6.0 MiB of 256.0 MiB, 1 reader\n"
        "1 chunk left the page cache and had to be read again\n"
        "2 restarts of the daemon (the last: killed, 2026-11-24T10:00:00Z)\n"
        "settings: prefetch=follow, verify=async, 6 workers, chunk 2.0 MiB, window unlimited\n"
        "\nvae ";
    if (strncmp(text, expected, sizeof expected - 1) != 0)
        fail_msg("%s", text);
    assert_has(text,
               "  s-1                                  100 %    3.0 MiB of    3.0 MiB  verified\n"
               "  s-2                                    0 %       50 B of    1.0 MiB  failed\n"
               "  note: a note\n");
    assert_has(text, "odd \\xff\\x22\\x5c\\x0a/model.safetensors   0 %        0 B of    1.0 MiB  "
                     "pending, evicted\n  m ");
    assert_has(text, "\n\nnote: a note\nnote: another\n");
    free(text);
}

static void test_summary(void **state)
{
    (void)state;
    char *line = unshard_status_summary(&whole);
    assert_string_equal(line,
                        "2026-11-24T10:00:01Z /models/flux degraded: 2.0 MiB of 5.0 MiB (40 %), "
                        "2 MB/s, 2 s left, 4 errors, paused: no room; vae 50 % failed; "
                        "odd \\xff\\x22\\x5c\\x0a/model.safetensors 0 % pending; te 100 % failed");
    free(line);
}

static void test_metrics(void **state)
{
    (void)state;
    char *text = unshard_status_metrics(&whole);
    assert_has(text, "unshard_mount_info{mountpoint=\"/mnt/\\\"flux\\\"\",source=\"/models/flux\","
                     "version=\"1.2.3\",prefetch=\"follow\"} 1\n");
    assert_has(text, ",state=\"degraded\"} 1\n");
    assert_has(text, ",state=\"ready\"} 0\n");
    assert_lacks(text, "unknown");
    assert_has(text, "# TYPE unshard_source_read_bytes counter\n# UNIT unshard_source_read_bytes "
                     "bytes\n");
    assert_has(text, "unshard_source_read_bytes_total{mountpoint=\"/mnt/\\\"flux\\\"\"} 3145728\n");
    assert_has(text, "unshard_uptime_seconds{mountpoint=\"/mnt/\\\"flux\\\"\"} 12.345");
    assert_has(text, "unshard_looks_stalled{mountpoint=\"/mnt/\\\"flux\\\"\"} 2\n");
    assert_has(text, "unshard_oldest_look_seconds{mountpoint=\"/mnt/\\\"flux\\\"\"} 5.5\n");
    assert_has(text, "# TYPE unshard_restarts counter\n# HELP unshard_restarts ");
    assert_has(text, "unshard_restarts_total{mountpoint=\"/mnt/\\\"flux\\\"\"} 2\n");
    assert_has(text, "# TYPE unshard_last_restart_timestamp_seconds gauge\n"
                     "# UNIT unshard_last_restart_timestamp_seconds seconds\n");
    assert_has(text, "unshard_last_restart_timestamp_seconds{mountpoint=\"/mnt/\\\"flux\\\"\","
                     "reason=\"killed\"} 1795514400\n");
    assert_lacks(text, "unshard_window_bytes"); /* without a limit */
    assert_lacks(text, "unshard_read_ahead_bytes");
    assert_has(text, "unshard_component_verified_bytes{mountpoint=\"/mnt/\\\"flux\\\"\",component="
                     "\"vae\"} 3145728\n");
    assert_has(text, "component=\"vae\",state=\"failed\"} 1\n");
    assert_has(text, "component=\"te #4\",state=\"unverified\"} 1\n");
    assert_has(text, "component=\".\"} 1\n"); /* evicted */
    assert_has(text, "unshard_component_failed{mountpoint=\"/mnt/\\\"flux\\\"\",component=\"te\","
                     "code=\"missing\"} 1\n");
    assert_has(text,
               "component=\"vae\",shard=\"vae/s-2.safetensors\",code=\"truncated\"} 1\n# EOF\n");
    free(text);
}

static void test_json(void **state)
{
    (void)state;
    char *json = unshard_status_json(&whole);
    assert_has(json, "\"state\":\t\"degraded\",\n\t\"time\":\t\"2026-11-24T10:00:01Z\",\n");
    assert_has(json, "\"uptime_seconds\":\t12.345,");
    assert_has(json, "\"restarts\":\t2,\n\t\"restart_time\":\t\"2026-11-24T10:00:00Z\",\n\t"
                     "\"restart_reason\":\t\"killed\",");
    assert_has(json, "\"read_ahead_bytes\":\tnull,");
    assert_has(json, "\"window_bytes\":\tnull,");
    assert_has(json, "\"file\":\t\"odd \\\\xff\\\\x22\\\\x5c\\\\x0a/m.safetensors\",");
    assert_has(json, "\"problems\":\t[{\n\t\t\t\"code\":\t\"bad-list\",");
    assert_has(json, "\"code\":\t\"changed\","); /* of a file of no component */
    assert_has(json, "\"mismatch\":\t{\n");
    assert_has(json, "\"looks_stalled\":\t2,\n\t\"oldest_look_seconds\":\t5.500,");
    assert_has(json, "\"directory\":\t\"loras \\\\xff\",\n\t\t\t\"seconds\":\t5.500");
    free(json);
}

/* Whoever reads the JSON shows the same as who wrote it. */
static void test_json_comes_round(void **state)
{
    (void)state;
    char *json = unshard_status_json(&whole);
    struct unshard_status *parsed = unshard_status_parse(json);
    assert_non_null(parsed);
    assert_int_equal(parsed->component_count, 4);
    assert_int_equal(parsed->problem_count, 2);
    assert_int_equal(parsed->components[0].shards[1]->error->offset, 50);
    assert_string_equal(parsed->components[0].shards[1]->mismatch->actual, "11ee");
    assert_int_equal(parsed->view_state, UNSHARD_STATE_UNKNOWN);
    char *(*const renderings[])(const struct unshard_status *) = {
        unshard_status_json, unshard_status_summary, unshard_status_metrics};
    for (size_t i = 0; i < sizeof renderings / sizeof *renderings; i++) {
        char *here = renderings[i](&whole), *there = renderings[i](parsed);
        assert_string_equal(here, there);
        free(here);
        free(there);
    }
    for (unsigned width = 0; width < 250; width += 31) {
        char *here = unshard_status_text(&whole, width);
        char *there = unshard_status_text(parsed, width);
        assert_string_equal(here, there);
        free(here);
        free(there);
    }
    unshard_status_free(parsed);
    free(json);
}

/* A person is told of looks that take longer than a directory of many files may. */
static void test_looks_that_have_just_begun(void **state)
{
    (void)state;
    struct unshard_stuck_look look = {"one", 4.9};
    struct unshard_status status = {
        .looks = {.stalled = 1, .oldest_seconds = 7, .stuck = &look, .stuck_count = 1}};
    char *text = unshard_status_text(&status, 0);
    assert_lacks(text, "stalled:");
    free(text);
    look.seconds = 5;
    text = unshard_status_text(&status, 0);
    assert_has(text, "stalled: 1 look at directories; the oldest waits 5 s: one\n");
    free(text);
}

static void assert_restarts(const struct unshard_status *status, const char *line,
                            const char *sample)
{
    char *text = unshard_status_text(status, 0), *metrics = unshard_status_metrics(status);
    if (line != NULL)
        assert_has(text, line);
    else
        assert_lacks(text, "restart");
    if (sample != NULL)
        assert_has(metrics, sample);
    else
        assert_lacks(metrics, "unshard_last_restart");
    free(text);
    free(metrics);
}

/* Nothing is told of what never happened, and no reason that has no word. */
static void test_restarts(void **state)
{
    (void)state;
    struct unshard_status status = {.restart_time = 1795514400, .restart_reason = "crashed"};
    assert_restarts(&status, NULL, NULL);
    status.restarts = 1;
    assert_restarts(&status, "1 restart of the daemon (crashed, 2026-11-24T10:00:00Z)\n",
                    ",reason=\"crashed\"} 1795514400\n");
    static const char *const others[] = {"none", "", "\033[2J", NULL};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        status.restart_reason = others[i];
        assert_restarts(&status, "1 restart of the daemon (unknown, 2026-11-24T10:00:00Z)\n",
                        ",reason=\"unknown\"} 1795514400\n");
        char *json = unshard_status_json(&status);
        assert_has(json, "\"restart_reason\":\tnull,");
        free(json);
    }
    status.restart_time = 0;
    assert_restarts(&status, "1 restart of the daemon (unknown)\n", NULL);
}

static void test_restarts_are_read(void **state)
{
    (void)state;
    static const char *const words[] = {"killed", "crashed", "failed", "upgraded"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char json[80];
        snprintf(json, sizeof json, "{\"schema\":1,\"restarts\":7,\"restart_reason\":\"%s\"}",
                 words[i]);
        struct unshard_status *parsed = unshard_status_parse(json);
        assert_non_null(parsed);
        assert_int_equal(parsed->restarts, 7);
        assert_string_equal(parsed->restart_reason, words[i]);
        unshard_status_free(parsed);
    }
    static const char *const odd[] = {
        "{\"schema\":1}",
        "{\"schema\":1,\"restarts\":-1,\"restart_time\":7,\"restart_reason\":\"none\"}",
        "{\"schema\":1,\"restarts\":\"2\",\"restart_time\":\"today\",\"restart_reason\":3}",
        "{\"schema\":1,\"restarts\":null,\"restart_time\":null,\"restart_reason\":null}",
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct unshard_status *parsed = unshard_status_parse(odd[i]);
        assert_non_null(parsed);
        assert_int_equal(parsed->restarts, 0);
        assert_int_equal(parsed->restart_time, 0);
        assert_null(parsed->restart_reason);
        unshard_status_free(parsed);
    }
}

/* A limit of the window of nothing is one, and no read-ahead is none. */
static void test_what_is_null(void **state)
{
    (void)state;
    struct unshard_status status = {.window_limited = true, .read_ahead_bytes = 4096};
    char *json = unshard_status_json(&status);
    assert_has(json, "\"window_bytes\":\t0,");
    assert_has(json, "\"read_ahead_bytes\":\t4096,");
    assert_has(json, "\"mountpoint\":\tnull,");
    assert_has(json, "\"connection\":\tnull,");
    assert_has(json, "\"time\":\tnull,");
    struct unshard_status *parsed = unshard_status_parse(json);
    assert_non_null(parsed);
    assert_true(parsed->window_limited);
    assert_null(parsed->mountpoint);
    assert_int_equal(parsed->time, 0);
    unshard_status_free(parsed);
    free(json);
}

/* A small file must not ask for much memory: a few bytes of it can stand for an error each. */
static void test_memory_is_bounded(void **state)
{
    (void)state;
    const size_t count = 1000000;
    char *json = malloc(64 + count * 3);
    assert_non_null(json);
    size_t length = (size_t)sprintf(json, "{\"schema\":1,\"problems\":[{}");
    for (size_t i = 1; i < count; i++, length += 3)
        memcpy(json + length, ",{}", 3);
    strcpy(json + length, "]}");
    assert_null(unshard_status_parse(json));
    free(json);
}

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(unshard_state_name(UNSHARD_STATE_READING), "reading");
    assert_string_equal(unshard_state_name(UNSHARD_STATE_COUNT), "unknown");
    assert_string_equal(unshard_mount_state_name(UNSHARD_MOUNT_STOPPING), "stopping");
    assert_string_equal(unshard_mount_state_name((enum unshard_mount_state)99), "unknown");
    for (unsigned i = 0; i < UNSHARD_MOUNT_STATE_COUNT; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"schema\":1,\"state\":\"%s\"}", unshard_mount_state_name(i));
        struct unshard_status *parsed = unshard_status_parse(json);
        assert_non_null(parsed);
        assert_int_equal(parsed->state, i);
        unshard_status_free(parsed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_lines),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_comes_round),
        cmocka_unit_test(test_looks_that_have_just_begun),
        cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_restarts_are_read),
        cmocka_unit_test(test_what_is_null),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
