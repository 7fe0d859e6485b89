/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/index_file.h"
#include "support/corpus.h"

#define CORPUS "tests/corpus/index_file"
#define INDEX_NAME "model.safetensors.index.json"

static int parse_file(const char *data, size_t length, const char *name,
                      struct unshard_error *error)
{
    struct arena arena = {0};
    struct index_file index = {0};
    int result = index_file_parse(data, length, name, INDEX_NAME, &arena, &index, error);
    arena_free(&arena);
    return result;
}

static void test_corpus(void **state)
{
    (void)state;
    corpus_walk(CORPUS, parse_file, 5);
}

static void test_content(void **state)
{
    (void)state;
    static const char json[] = "{\"metadata\":{\"total_size\":12,\"x\":\"y\"},"
                               "\"weight_map\":{\"b\":\"two\",\"a\":\"one\",\"c\":\"two\"}}";
    struct arena arena = {0};
    struct index_file index = {0};
    struct unshard_error error;
    assert_int_equal(
        index_file_parse(json, sizeof json - 1, "index", INDEX_NAME, &arena, &index, &error), 0);
    assert_int_equal(index.entry_count, 3);
    assert_int_equal(index.file_count, 2);
    assert_string_equal(index.files[index.entries[0].file], "two");
    assert_string_equal(index.files[index.entries[1].file], "one");
    assert_int_equal(index.entries[2].file, index.entries[0].file);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
