/* SPDX-License-Identifier: MIT
 *
 * Every file of tests/corpus/gguf, and merged files: the one that llama-gguf-split wrote, and the
 * keys that must not be merged. */
#include "formats/gguf/gguf_merge.h"
#include "view/planner.h"

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

#define CORPUS "tests/corpus/gguf"
#define VECTOR "tests/corpus/gguf_merge/"

struct bytes {
    char *data;
    size_t length;
};

/* What a file of the corpus that is refused must be refused for. */
static const struct refusal {
    const char *file, *code, *words;
} refusals[] = {
    {"empty", "truncated", "0 bytes"},
    {"magic", "malformed-header", "\"GGML\""},
    {"cut-in-magic", "truncated", "magic"},
    {"cut-in-counts", "truncated", "key count"},
    {"lfs-pointer", "lfs-pointer", "not pulled"},
    {"web-page", "web-page", "\"Sign in\""},
    {"text", "not-weights", "\"404: Not Found\""},
    {"version-0", "unsupported-version", "version 0"},
    {"version-1", "unsupported-version", "version 1"},
    {"version-4", "unsupported-version", "version 4"},
    {"version-3000000", "unsupported-version", "big-endian"},
    {"version-ffffffff", "unsupported-version", "4294967295"},
    {"tensor-count-2-63", "malformed-header", "negative"},
    {"tensor-count-minus-1", "malformed-header", "-1 is negative"},
    {"tensor-count-2-62", "malformed-header", "limit"},
    {"tensor-count-above-file", "truncated", "tensor count 9"},
    {"key-count-2-63", "malformed-header", "negative"},
    {"key-count-minus-1", "malformed-header", "-1 is negative"},
    {"key-count-2-62", "malformed-header", "limit"},
    {"key-count-above-file", "truncated", "key count 9"},
    {"key-length-2-63", "malformed-header", "9223372036854775808"},
    {"key-length-above-file", "truncated", "1000 bytes"},
    {"key-empty", "malformed-header", "key 0 is empty"},
    {"key-twice", "malformed-header", "twice"},
    {"key-nul", "malformed-header", "k\\x00k"},
    {"key-not-utf8", "malformed-header", "UTF-8"},
    {"value-type-13", "malformed-header", "type 13"},
    {"value-type-minus-1", "malformed-header", "type 4294967295"},
    {"value-cut", "truncated", "key-key"},
    {"string-length-2-63", "malformed-header", "9223372036854775808"},
    {"string-above-1-gib", "malformed-header", "1073741825"},
    {"string-cut", "truncated", "6 bytes"},
    {"array-of-arrays", "malformed-header", "type 9"},
    {"array-count-2-61", "malformed-header", "2305843009213693952"},
    {"array-count-above-2-30", "malformed-header", "1073741825"},
    {"array-cut", "truncated", "12 bytes"},
    {"array-strings-cut", "truncated", "8 bytes"},
    {"array-type-unknown", "malformed-header", "type 99"},
    {"alignment-0", "malformed-header", "power of two"},
    {"alignment-3", "malformed-header", "power of two"},
    {"alignment-48", "malformed-header", "power of two"},
    {"alignment-2147483648", "malformed-header", "limit"},
    {"alignment-2097152", "malformed-header", "limit"},
    {"alignment-string", "malformed-header", "no u32"},
    {"alignment-u64", "malformed-header", "no u32"},
    {"alignment-array", "malformed-header", "no u32"},
    {"type-4", "malformed-header", "type 4 is unknown"},
    {"type-31", "malformed-header", "type 31 is unknown"},
    {"type-38", "malformed-header", "type 38 is unknown"},
    {"type-43", "malformed-header", "type 43 is unknown"},
    {"type-99", "malformed-header", "type 99 is unknown"},
    {"type-4294967295", "malformed-header", "type -1 is unknown"},
    {"dimension-negative", "malformed-header", "dimension 1 is negative"},
    {"dimensions-overflow", "malformed-header", "overflows"},
    {"dimensions-overflow-then-zero", "malformed-header", "overflows"},
    {"bytes-overflow", "malformed-header", "of F64 overflows"},
    {"row-no-whole-block", "malformed-header", "blocks of 32 (Q4_0)"},
    {"five-dimensions", "malformed-header", "5 dimensions"},
    {"rank-2-32-minus-1", "malformed-header", "4294967295 dimensions"},
    {"offset-hole", "malformed-header", "begins at 64"},
    {"offset-overlap", "malformed-header", "begins at 0"},
    {"offset-unaligned", "malformed-header", "begins at 12"},
    {"offset-past-end", "malformed-header", "begins at 1099511627776"},
    {"offset-minus-1", "malformed-header", "begins at 18446744073709551615"},
    {"other-order", "malformed-header", "begins at 32"},
    {"sizes-overflow", "malformed-header", "overflow"},
    {"tensor-twice", "duplicate-tensor", "\"a\""},
    {"name-64-bytes", "malformed-header", "64 bytes"},
    {"name-nul", "malformed-header", "a\\x00b"},
    {"name-not-utf8", "malformed-header", "UTF-8"},
    {"cut-in-info", "truncated", "tensor \"a\""},
    {"truncated-data", "truncated", "ends at 131"},
    {"truncated-padding", "truncated", "ends at 58"},
};
#define REFUSALS (sizeof refusals / sizeof refusals[0])

static struct bytes load(const char *directory, const char *name)
{
    char path[512];
    struct bytes bytes = {0};
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail_msg("%s: %s", path, strerror(errno));
    bytes.data = malloc(1 << 16);
    assert_non_null(bytes.data);
    bytes.length = fread(bytes.data, 1, 1 << 16, file);
    fclose(file);
    return bytes;
}

static int read_bytes(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct bytes *bytes = context;
    assert_true(offset <= bytes->length && length <= bytes->length - offset);
    memcpy(buffer, bytes->data + offset, length);
    return 0;
}

static int parse(struct bytes *bytes, struct arena *arena, struct tensor_set *set,
                 struct unshard_error *error)
{
    struct byte_reader reader = {.context = bytes, .size = bytes->length, .read = read_bytes};
    *set = (struct tensor_set){0};
    return gguf_read(&reader, "file.gguf", arena, set, error);
}

static const struct refusal *refusal_of(const char *file)
{
    for (size_t i = 0; i < REFUSALS; i++)
        if (strlen(file) == strlen(refusals[i].file) + strlen("reject-.gguf") &&
            strncmp(file + strlen("reject-"), refusals[i].file, strlen(refusals[i].file)) == 0)
            return &refusals[i];
    return NULL;
}

static void check_refused(const char *file, int result, const struct unshard_error *error)
{
    const struct refusal *expected = refusal_of(file);
    if (expected == NULL)
        fail_msg("%s: the test does not say what it must be refused for", file);
    assert_true(result < 0);
    if (strcmp(error->code, expected->code) != 0 ||
        strstr(error->message, expected->words) == NULL ||
        strncmp(error->message, "file.gguf: ", 11) != 0)
        fail_msg("%s: %s: %s", file, error->code, error->message);
}

static void test_corpus(void **state)
{
    (void)state;
    size_t rejected = 0, accepted = 0;
    DIR *directory = opendir(CORPUS);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct arena arena = {0};
        struct tensor_set set;
        struct unshard_error error = {0};
        if (entry->d_name[0] == '.')
            continue;
        struct bytes bytes = load(CORPUS, entry->d_name);
        int result = parse(&bytes, &arena, &set, &error);
        if (strncmp(entry->d_name, "reject-", 7) == 0) {
            check_refused(entry->d_name, result, &error);
            rejected++;
        } else if (result != 0) {
            fail_msg("%s: %s", entry->d_name, error.message);
        } else {
            accepted++;
        }
        arena_free(&arena);
        free(bytes.data);
    }
    closedir(directory);
    assert_int_equal(rejected, REFUSALS);
    assert_true(accepted >= 20);
}

/* A file without the end of its data is told apart from one whose header cannot be used. */
static void test_truncated_data_keeps_the_layout(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct tensor_set set;
    struct unshard_error error;
    struct bytes bytes = load(CORPUS, "reject-truncated-data.gguf");
    assert_int_equal(parse(&bytes, &arena, &set, &error), -EINVAL);
    assert_int_equal(set.tensor_count, 2);
    assert_int_equal(set.tensors[1].offset, set.data_offset + 32);
    assert_int_equal(set.tensors[1].length, 4);
    assert_string_equal(tensor_type_name(&set.tensors[1]), "F32");
    arena_free(&arena);
    free(bytes.data);
}

static void test_blocks_and_shapes(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct tensor_set set;
    struct unshard_error error;
    struct bytes bytes = load(CORPUS, "accept-blocks.gguf");
    assert_int_equal(parse(&bytes, &arena, &set, &error), 0);
    assert_string_equal(tensor_type_name(&set.tensors[0]), "Q4_K");
    assert_int_equal(set.tensors[0].rank, 2);
    assert_int_equal(set.tensors[0].shape[0], 256);
    assert_int_equal(set.tensors[0].shape[1], 3);
    assert_int_equal(set.tensors[0].length, 432);
    assert_null(set.metadata);
    arena_free(&arena);
    free(bytes.data);
}

/* ---- merging -----------------------------------------------------------------------------------
 */

/* Splits made of literal bytes. */
struct splits {
    struct bytes files[3];
    struct arena arena;
    struct tensor_set sets[3];
    size_t count;
};

static void add_split(struct splits *splits, struct bytes bytes)
{
    struct unshard_error error = {0};
    struct tensor_set *set = &splits->sets[splits->count];
    splits->files[splits->count] = bytes;
    if (parse(&splits->files[splits->count], &splits->arena, set, &error) != 0)
        fail_msg("split %zu: %s", splits->count, error.message);
    for (size_t i = 0; i < set->tensor_count; i++)
        set->tensors[i].file = (uint32_t)splits->count;
    splits->count++;
}

static void splits_free(struct splits *splits)
{
    for (size_t i = 0; i < splits->count; i++)
        free(splits->files[i].data);
    arena_free(&splits->arena);
    *splits = (struct splits){0};
}

static int plan(const struct splits *splits, struct merged_view *view, struct unshard_error *error)
{
    const struct planner_input input = {.sets = splits->sets,
                                        .set_count = splits->count,
                                        .component = "model",
                                        .format = format_of_name("gguf")};
    return planner_merge(&input, view, error);
}

/* The bytes of a view; the caller frees them. */
static struct bytes materialise(const struct splits *splits, const struct extent_map *map)
{
    struct bytes out = {malloc(map->size + 1), map->size};
    assert_non_null(out.data);
    for (uint64_t at = 0; at < map->size;) {
        struct extent_piece piece = extent_map_at(map, at, UINT64_MAX);
        const char *source =
            piece.source == EXTENT_LITERAL ? map->literal : splits->files[piece.source].data;
        memcpy(out.data + at, source + piece.source_offset, piece.length);
        at += piece.length;
    }
    return out;
}

static void test_merged_is_what_the_tool_writes(void **state)
{
    (void)state;
    struct splits splits = {0};
    struct merged_view view;
    struct unshard_error error = {0};
    add_split(&splits, load(VECTOR, "vector-00001-of-00002.gguf"));
    add_split(&splits, load(VECTOR, "vector-00002-of-00002.gguf"));
    struct bytes expected = load(VECTOR, "vector-merged.gguf");
    if (plan(&splits, &view, &error) != 0)
        fail_msg("%s", error.message);
    struct bytes found = materialise(&splits, &view.map);
    assert_int_equal(found.length, expected.length);
    assert_memory_equal(found.data, expected.data, expected.length);
    assert_int_equal(view.tensor_count, 3);
    assert_null(view.note);
    free(found.data);
    free(expected.data);
    merged_view_free(&view);
    splits_free(&splits);
}

static void append_key(struct text *text, const char *key, uint32_t type, uint64_t value,
                       size_t size)
{
    uint64_t length = strlen(key);
    text_append(text, &length, 8);
    text_append(text, key, length);
    text_append(text, &type, 4);
    text_append(text, &value, size);
}

/* What a split says of itself; -1 leaves the key out. */
struct split_keys {
    int no, count, tensors;
    uint32_t alignment, no_type;
};

/* A split with one F32 tensor of one element, called by `name`. */
static struct bytes make_split(struct split_keys keys, char name)
{
    struct text text = {0};
    uint64_t tensors = 1, one = 1, offset = 0;
    uint64_t pairs =
        (uint64_t)(keys.no >= 0) + (keys.count >= 0) + (keys.tensors != -1) + (keys.alignment != 0);
    uint32_t version = 3, rank = 1, type = 0;
    text_append(&text, "GGUF", 4);
    text_append(&text, &version, 4);
    text_append(&text, &tensors, 8);
    text_append(&text, &pairs, 8);
    if (keys.no >= 0)
        append_key(&text, "split.no", keys.no_type != 0 ? keys.no_type : GGUF_U16,
                   (uint64_t)keys.no, keys.no_type != 0 ? 4 : 2);
    if (keys.count >= 0)
        append_key(&text, "split.count", GGUF_U16, (uint64_t)keys.count, 2);
    if (keys.tensors != -1)
        append_key(&text, "split.tensors.count", GGUF_I32, (uint32_t)keys.tensors, 4);
    if (keys.alignment != 0)
        append_key(&text, "general.alignment", GGUF_U32, keys.alignment, 4);
    text_append(&text, &one, 8);
    text_append(&text, &name, 1);
    text_append(&text, &rank, 4);
    text_append(&text, &one, 8);
    text_append(&text, &type, 4);
    text_append(&text, &offset, 8);
    while (text.length % (keys.alignment != 0 ? keys.alignment : 32) != 0)
        text_append(&text, "", 1);
    text_append(&text, &name, 1);
    text_append(&text, "\1\2\3", 3);
    return (struct bytes){text.data, text.length};
}

static void refuses(struct split_keys first, struct split_keys second, const char *words)
{
    struct splits splits = {0};
    struct merged_view view;
    struct unshard_error error = {0};
    add_split(&splits, make_split(first, 'a'));
    add_split(&splits, make_split(second, 'b'));
    int result = plan(&splits, &view, &error);
    if (result == 0 || strcmp(error.code, "split-mismatch") != 0 ||
        strstr(error.message, words) == NULL)
        fail_msg("%d %s: '%s' does not say '%s'", result, error.code, error.message, words);
    splits_free(&splits);
}

static void test_what_is_no_set(void **state)
{
    (void)state;
    const struct split_keys first = {0, 2, 2, 0, 0}, second = {1, 2, 2, 0, 0};
    struct split_keys wrong = first;
    wrong.count = 0;
    refuses(wrong, second, "split 1: key \"split.count\" is 0, it should be 2");
    wrong.count = 1;
    refuses(wrong, second, "is 1, it should be 2");
    wrong.count = 65535;
    refuses(wrong, second, "is 65535");
    wrong.count = -1;
    refuses(wrong, second, "\"split.count\" is missing");
    refuses(second, first, "split 1: key \"split.no\" is 1, it should be 0");
    refuses(first, first, "split 2: key \"split.no\" is 0, it should be 1");
    wrong = first;
    wrong.tensors = 3;
    refuses(wrong, second, "\"split.tensors.count\" is 3, it should be 2");
    wrong.tensors = -2;
    refuses(wrong, second, "is -2");
    wrong.tensors = -1;
    refuses(wrong, second, "missing");
    wrong = second;
    wrong.no = -1;
    refuses(first, wrong, "split 2: key \"split.no\" is missing");
    wrong = second;
    wrong.count = 3;
    refuses(first, wrong, "split 2: key \"split.count\" is 3");
    wrong = first;
    wrong.no_type = GGUF_U32;
    refuses(wrong, second, "\"split.no\" is no u16");
}

static void test_same_name_in_two_splits(void **state)
{
    (void)state;
    struct splits splits = {0};
    struct merged_view view;
    struct unshard_error error = {0};
    add_split(&splits, make_split((struct split_keys){0, 2, 2, 0, 0}, 'a'));
    add_split(&splits, make_split((struct split_keys){1, 2, 2, 0, 0}, 'a'));
    assert_true(plan(&splits, &view, &error) < 0);
    assert_string_equal(error.code, "duplicate-tensor");
    splits_free(&splits);
}

/* The merged file keeps to the alignment that it declares, and so can be read again. */
static void test_declared_alignment(void **state)
{
    (void)state;
    struct splits splits = {0}, again = {0};
    struct merged_view view;
    struct unshard_error error = {0};
    add_split(&splits, make_split((struct split_keys){0, 2, 2, 256, 0}, 'a'));
    add_split(&splits, make_split((struct split_keys){1, 2, -1, 0, 0}, 'b'));
    if (plan(&splits, &view, &error) != 0)
        fail_msg("%s", error.message);
    assert_non_null(view.note);
    add_split(&again, materialise(&splits, &view.map));
    const struct tensor_set *set = &again.sets[0];
    assert_int_equal(set->tensor_count, 2);
    assert_int_equal(set->data_offset % 256, 0);
    assert_int_equal(set->tensors[1].offset, set->data_offset + 256);
    assert_int_equal(view.map.size, set->data_offset + 512);
    assert_memory_equal(again.files[0].data + set->tensors[0].offset, "a\1\2\3", 4);
    assert_memory_equal(again.files[0].data + set->tensors[1].offset, "b\1\2\3\0", 5);
    merged_view_free(&view);
    splits_free(&again);
    splits_free(&splits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_truncated_data_keeps_the_layout),
        cmocka_unit_test(test_blocks_and_shapes),
        cmocka_unit_test(test_merged_is_what_the_tool_writes),
        cmocka_unit_test(test_what_is_no_set),
        cmocka_unit_test(test_same_name_in_two_splits),
        cmocka_unit_test(test_declared_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
