/* SPDX-License-Identifier: MIT
 *
 * The parsers of files that hold digests: every file of their corpora, and what is told of some. */
#include "digest/checksum_list.h"
#include "digest/checksums_json.h"
#include "digest/hub_metadata.h"
#include "digest/hub_tree.h"
#include "digest/manifest.h"
#include "digest/xxhsum_list.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CORPUS "tests/corpus/"

/* What a parser made of a file. */
struct outcome {
    struct arena arena;
    struct digest_list list;
    struct manifest manifest;
    struct hub_metadata metadata;
    struct unshard_error error;
    int result;
};

typedef void (*parse_function)(const char *text, size_t length, struct outcome *out);

static void parse_checksum_list(const char *text, size_t length, struct outcome *out)
{
    out->result = checksum_list_parse(text, length, "LIST", DIGEST_NONE, NULL, &out->arena,
                                      &out->list, &out->error);
}

static void parse_xxhsum_list(const char *text, size_t length, struct outcome *out)
{
    out->result = xxhsum_list_parse(text, length, "LIST", &out->arena, &out->list, &out->error);
}

static void parse_hub_metadata(const char *text, size_t length, struct outcome *out)
{
    out->result = hub_metadata_parse(text, length, "LIST", &out->metadata, &out->error);
}

static void parse_hub_tree(const char *text, size_t length, struct outcome *out)
{
    out->result = hub_tree_parse(text, length, "LIST", &out->arena, &out->list, &out->error);
}

static void parse_checksums_json(const char *text, size_t length, struct outcome *out)
{
    out->result = checksums_json_parse(text, length, "LIST", &out->arena, &out->list, &out->error);
}

static void parse_manifest(const char *text, size_t length, struct outcome *out)
{
    out->result = manifest_parse(text, length, "LIST", &out->arena, &out->manifest, &out->error);
}

static void outcome_free(struct outcome *outcome)
{
    digest_list_free(&outcome->list);
    arena_free(&outcome->arena);
    *outcome = (struct outcome){0};
}

static char *read_file(const char *folder, const char *name, size_t *length)
{
    char path[512];
    snprintf(path, sizeof path, CORPUS "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s: %s", path, strerror(errno));
    char *text = malloc(1 << 20);
    assert_non_null(text);
    *length = fread(text, 1, 1 << 20, file);
    (void)fclose(file);
    /* The exact size, so that the sanitizer sees a read beyond the end. */
    char *exact = malloc(*length > 0 ? *length : 1);
    assert_non_null(exact);
    memcpy(exact, text, *length);
    free(text);
    return exact;
}

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void check_outcome(const char *folder, const char *name, const struct outcome *outcome)
{
    bool reject = begins(name, "reject-"), partly = begins(name, "partly-");
    if ((outcome->result != 0) != reject)
        fail_msg("%s/%s: result %d %s", folder, name, outcome->result, outcome->error.message);
    if (!reject && (outcome->list.malformed_count > 0) != partly)
        fail_msg("%s/%s: %u malformed entries: %s", folder, name, outcome->list.malformed_count,
                 outcome->list.malformed.message);
    if (reject && (outcome->error.code == NULL || !begins(outcome->error.message, "LIST")))
        fail_msg("%s/%s: the message does not begin with the file: %s", folder, name,
                 outcome->error.message);
    if (partly && !begins(outcome->list.malformed.message, "LIST line "))
        fail_msg("%s/%s: the message names no line: %s", folder, name,
                 outcome->list.malformed.message);
}

static void walk(const char *folder, parse_function parse)
{
    char path[256];
    unsigned count = 0;
    snprintf(path, sizeof path, CORPUS "%s", folder);
    DIR *directory = opendir(path);
    if (directory == NULL)
        fail_msg("%s: %s", path, strerror(errno));
    for (const struct dirent *item; (item = readdir(directory)) != NULL;) {
        if (item->d_name[0] == '.')
            continue;
        struct outcome outcome = {0};
        size_t length;
        char *text = read_file(folder, item->d_name, &length);
        parse(text, length, &outcome);
        check_outcome(folder, item->d_name, &outcome);
        outcome_free(&outcome);
        free(text);
        count++;
    }
    closedir(directory);
    assert_true(count > 10);
}

static void every_file_of_the_corpora_is_judged_by_its_name(void **state)
{
    (void)state;
    walk("checksum_list", parse_checksum_list);
    walk("xxhsum_list", parse_xxhsum_list);
    walk("hub_metadata", parse_hub_metadata);
    walk("hub_tree", parse_hub_tree);
    walk("checksums_json", parse_checksums_json);
    walk("manifest", parse_manifest);
}

/* ---- what is in them ---------------------------------------------------------------------------
 */

#define SHA256_HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static void parse_corpus(const char *folder, const char *name, parse_function parse,
                         struct outcome *out)
{
    size_t length;
    char *text = read_file(folder, name, &length);
    *out = (struct outcome){0};
    parse(text, length, out);
    free(text);
}

/* Every entry is the digest of "hello", by the vectors of test_digest.c. */
static void assert_entry(const struct digest_list *list, uint32_t number, const char *name,
                         enum digest_algorithm algorithm)
{
    struct digest computed;
    assert_true(number < list->count);
    struct hasher *hasher = hasher_new(algorithm, 5);
    hasher_update(hasher, "hello", 5);
    hasher_finish(hasher, &computed);
    hasher_free(hasher);
    assert_string_equal(list->items[number].name, name);
    assert_true(digest_equal(&list->items[number].digest, &computed));
}

static void names_and_digests_of_checksum_lists(void **state)
{
    (void)state;
    struct outcome one;
    parse_corpus("checksum_list", "accept-escaped", parse_checksum_list, &one);
    assert_int_equal(one.list.count, 2);
    assert_entry(&one.list, 0, "a\nb\\c\r", DIGEST_SHA256);
    assert_entry(&one.list, 1, "x\ny", DIGEST_SHA256);
    outcome_free(&one);
    parse_corpus("checksum_list", "accept-tagged", parse_checksum_list, &one);
    assert_int_equal(one.list.count, 5);
    assert_entry(&one.list, 0, "a", DIGEST_MD5);
    assert_entry(&one.list, 1, "a", DIGEST_SHA1);
    assert_entry(&one.list, 3, "a", DIGEST_SHA512);
    assert_entry(&one.list, 4, "b (1).bin", DIGEST_SHA256);
    assert_int_equal(one.list.items[4].line, 5);
    outcome_free(&one);
    parse_corpus("checksum_list", "accept-dot-slash", parse_checksum_list, &one);
    assert_entry(&one.list, 0, "a", DIGEST_SHA256);
    assert_entry(&one.list, 1, "sub/b", DIGEST_SHA256);
    outcome_free(&one);
    parse_corpus("checksum_list", "accept-spaces-in-name", parse_checksum_list, &one);
    assert_entry(&one.list, 0, " a  ", DIGEST_SHA256);
    outcome_free(&one);
    parse_corpus("checksum_list", "accept-crlf", parse_checksum_list, &one);
    assert_entry(&one.list, 0, "a.safetensors", DIGEST_SHA256);
    outcome_free(&one);
}

static void unsafe_and_unsupported_entries_are_counted(void **state)
{
    (void)state;
    struct outcome one;
    parse_corpus("checksum_list", "accept-unsafe-names", parse_checksum_list, &one);
    assert_int_equal(one.list.count, 0);
    assert_int_equal(one.list.unsafe_count, 7);
    assert_string_equal(one.list.unsafe, "LIST line 1: the name \"../x\" has a component \"..\"");
    outcome_free(&one);
    parse_corpus("checksum_list", "accept-unsupported-tag", parse_checksum_list, &one);
    assert_int_equal(one.list.count, 1);
    assert_int_equal(one.list.unsupported_count, 2);
    assert_string_equal(one.list.unsupported, "LIST line 2: the algorithm is not supported");
    outcome_free(&one);
    parse_corpus("checksum_list", "partly-63-digits", parse_checksum_list, &one);
    assert_int_equal(one.list.count, 1);
    assert_string_equal(one.list.malformed.message,
                        "LIST line 2: no digest of the right length at its beginning");
    outcome_free(&one);
}

static void a_file_with_a_digest_alone_is_about_its_own_name(void **state)
{
    (void)state;
    static const char *const texts[] = {SHA256_HELLO, SHA256_HELLO "\n", SHA256_HELLO "\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct outcome one = {0};
        assert_int_equal(checksum_list_parse(texts[i], strlen(texts[i]), "a.sha256", DIGEST_SHA256,
                                             "a", &one.arena, &one.list, &one.error),
                         0);
        assert_int_equal(one.list.count, 1);
        assert_entry(&one.list, 0, "a", DIGEST_SHA256);
        outcome_free(&one);
        assert_int_equal(checksum_list_parse(texts[i], strlen(texts[i]), "SHA256SUMS",
                                             DIGEST_SHA256, NULL, &one.arena, &one.list,
                                             &one.error),
                         -EINVAL);
        outcome_free(&one);
    }
    /* The ending of the name tells the algorithm: digits of another are malformed. */
    struct outcome one = {0};
    assert_int_equal(checksum_list_parse("900150983cd24fb0d6963f7d28e17f72  a\n", 36, "a.sha256",
                                         DIGEST_SHA256, "a", &one.arena, &one.list, &one.error),
                     -EINVAL);
    outcome_free(&one);
}

static void a_line_without_end_is_bounded(void **state)
{
    (void)state;
    size_t length = 10 << 20;
    char *text = malloc(length);
    struct outcome one = {0};
    assert_non_null(text);
    memset(text, 'a', length);
    assert_int_equal(checksum_list_parse(text, length, "LIST", DIGEST_SHA256, NULL, &one.arena,
                                         &one.list, &one.error),
                     -EINVAL);
    assert_string_equal(one.error.message, "LIST line 1: the line is longer than 32768 bytes");
    outcome_free(&one);
    free(text);
}

static void names_and_digests_of_xxhsum_lists(void **state)
{
    (void)state;
    static const enum digest_algorithm order[] = {DIGEST_XXH32, DIGEST_XXH64, DIGEST_XXH3_128,
                                                  DIGEST_XXH3_64};
    static const char *const files[] = {"accept-gnu", "accept-bsd", "accept-little-endian"};
    struct outcome one;
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        parse_corpus("xxhsum_list", files[f], parse_xxhsum_list, &one);
        assert_int_equal(one.list.count, 4);
        for (uint32_t i = 0; i < 4; i++)
            assert_entry(&one.list, i, "a", order[i]);
        outcome_free(&one);
    }
    parse_corpus("xxhsum_list", "accept-crlf-names", parse_xxhsum_list, &one);
    assert_entry(&one.list, 0, "a\r", DIGEST_XXH64);
    outcome_free(&one);
    parse_corpus("xxhsum_list", "accept-parenthesis-in-name", parse_xxhsum_list, &one);
    assert_entry(&one.list, 0, "b (1) = 2", DIGEST_XXH64);
    outcome_free(&one);
}

static enum digest_algorithm etag_algorithm(const char *file)
{
    struct outcome one;
    parse_corpus("hub_metadata", file, parse_hub_metadata, &one);
    enum digest_algorithm algorithm = one.metadata.digest.algorithm;
    outcome_free(&one);
    return algorithm;
}

static void etags_are_classified(void **state)
{
    (void)state;
    assert_int_equal(etag_algorithm("accept-sha256"), DIGEST_SHA256);
    assert_int_equal(etag_algorithm("accept-git"), DIGEST_GIT_SHA1);
    assert_int_equal(etag_algorithm("accept-crlf"), DIGEST_SHA256);
    assert_int_equal(etag_algorithm("accept-etag-quoted"), DIGEST_SHA256);
    assert_int_equal(etag_algorithm("accept-etag-weak"), DIGEST_SHA256);
    assert_int_equal(etag_algorithm("accept-etag-upper-case"), DIGEST_NONE);
    assert_int_equal(etag_algorithm("accept-etag-multipart"), DIGEST_NONE);
    assert_int_equal(etag_algorithm("accept-etag-64-not-hex"), DIGEST_NONE);
    assert_int_equal(etag_algorithm("accept-etag-4-kb"), DIGEST_NONE);
}

static void metadata_is_stale_when_the_file_changed_since(void **state)
{
    (void)state;
    struct outcome one;
    parse_corpus("hub_metadata", "accept-sha256", parse_hub_metadata, &one);
    int64_t time = one.metadata.timestamp_ns;
    assert_int_equal(time, INT64_C(1718364512123456700));
    assert_string_equal(one.metadata.commit, "0123456789abcdef0123456789abcdef01234567");
    assert_true(hub_metadata_is_current(&one.metadata, time - INT64_C(3600000000000)));
    assert_true(hub_metadata_is_current(&one.metadata, time + 1000000000));
    assert_false(hub_metadata_is_current(&one.metadata, time + 1000000001));
    assert_false(hub_metadata_is_current(&one.metadata, INT64_MIN));
    outcome_free(&one);
    parse_corpus("hub_metadata", "accept-negative-time", parse_hub_metadata, &one);
    assert_int_equal(one.metadata.timestamp_ns, INT64_C(-1500000000));
    assert_false(hub_metadata_is_current(&one.metadata, 0));
    outcome_free(&one);
    parse_corpus("hub_metadata", "accept-commit-is-a-branch", parse_hub_metadata, &one);
    assert_string_equal(one.metadata.commit, "");
    outcome_free(&one);
}

static void trees_tell_content_not_pointers(void **state)
{
    (void)state;
    struct outcome one;
    parse_corpus("hub_tree", "accept-usual", parse_hub_tree, &one);
    assert_int_equal(one.list.count, 2);
    assert_entry(&one.list, 0, "a.safetensors", DIGEST_SHA256);
    assert_entry(&one.list, 1, "config.json", DIGEST_GIT_SHA1);
    assert_true(one.list.items[0].has_size && one.list.items[0].size == 5);
    outcome_free(&one);
    parse_corpus("hub_tree", "accept-unsafe-names", parse_hub_tree, &one);
    assert_int_equal(one.list.count, 0);
    assert_int_equal(one.list.unsafe_count, 4);
    outcome_free(&one);
    parse_corpus("hub_tree", "reject-version-2", parse_hub_tree, &one);
    assert_int_equal(one.result, -ENOTSUP);
    outcome_free(&one);
    parse_corpus("checksums_json", "reject-other-json", parse_checksums_json, &one);
    assert_int_equal(one.result, -ENOTSUP);
    outcome_free(&one);
}

/* ---- manifest ----------------------------------------------------------------------------------
 */

static void manifests_read_what_was_written(void **state)
{
    (void)state;
    uint8_t chunks[3][32] = {{1, 2}, {255, [31] = 255}, {[15] = 7}};
    struct manifest_file files[] = {
        {.path = "model-00001-of-00002.safetensors",
         .size = 5 << 20,
         .sha256 = {.algorithm = DIGEST_SHA256, .bytes = {1, 255}},
         .chunks = chunks[0],
         .chunk_count = 3},
        {.path = "a/\"quoted\"\n", .sha256 = {.algorithm = DIGEST_SHA256}}};
    struct manifest written = {.chunk_bytes = MANIFEST_CHUNK_BYTES,
                               .chunk_algorithm = DIGEST_SHA256,
                               .files = files,
                               .file_count = 2};
    struct text text = {0};
    struct outcome one = {0};
    assert_int_equal(manifest_write(&written, &text, &one.error), 0);
    parse_manifest(text.data, text.length, &one);
    text_free(&text);
    assert_int_equal(one.result, 0);
    assert_int_equal(one.manifest.chunk_bytes, MANIFEST_CHUNK_BYTES);
    assert_int_equal(one.manifest.file_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct manifest_file *read = &one.manifest.files[i];
        assert_string_equal(read->path, files[i].path);
        assert_int_equal(read->size, files[i].size);
        assert_true(digest_equal(&read->sha256, &files[i].sha256));
        assert_int_equal(read->chunk_count, files[i].chunk_count);
        if (read->chunk_count > 0)
            assert_memory_equal(read->chunks, chunks, sizeof chunks);
    }
    outcome_free(&one);
}

static void manifests_refuse_names_that_cannot_be_read_back(void **state)
{
    (void)state;
    static const char *const names[] = {"", "/a", "../a", "a/./b", "a//b", "caf\xe9"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct manifest_file file = {.path = names[i], .sha256 = {.algorithm = DIGEST_SHA256}};
        struct manifest manifest = {
            .chunk_bytes = MANIFEST_CHUNK_BYTES, .files = &file, .file_count = 1};
        struct unshard_error error = {0};
        struct text text = {0};
        assert_int_equal(manifest_write(&manifest, &text, &error), -EINVAL);
        assert_string_equal(error.code, "unsafe-name");
        text_free(&text);
    }
}

static void messages_of_json_name_the_line(void **state)
{
    (void)state;
    struct outcome one = {0};
    static const char text[] = "{\n  \"version\": 1,\n  \"chunk_bytes\": 3,\n  \"files\": []\n}\n";
    parse_manifest(text, sizeof text - 1, &one);
    assert_string_equal(one.error.message, "LIST line 3: chunk_bytes: is no power of two from "
                                           "65536 to 67108864");
    outcome_free(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_of_the_corpora_is_judged_by_its_name),
        cmocka_unit_test(names_and_digests_of_checksum_lists),
        cmocka_unit_test(unsafe_and_unsupported_entries_are_counted),
        cmocka_unit_test(a_file_with_a_digest_alone_is_about_its_own_name),
        cmocka_unit_test(a_line_without_end_is_bounded),
        cmocka_unit_test(names_and_digests_of_xxhsum_lists),
        cmocka_unit_test(etags_are_classified),
        cmocka_unit_test(metadata_is_stale_when_the_file_changed_since),
        cmocka_unit_test(trees_tell_content_not_pointers),
        cmocka_unit_test(manifests_read_what_was_written),
        cmocka_unit_test(manifests_refuse_names_that_cannot_be_read_back),
        cmocka_unit_test(messages_of_json_name_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
