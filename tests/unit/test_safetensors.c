/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/safetensors/safetensors.h"
#include "support/corpus.h"

#include <errno.h>

#define CORPUS "tests/corpus/safetensors"

struct memory {
    const char *data;
    size_t length;
};

static int read_memory(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct memory *memory = context;
    if (offset > memory->length || length > memory->length - offset)
        return -ENODATA;
    memcpy(buffer, memory->data + offset, length);
    return 0;
}

static int parse(const char *data, size_t length, const char *name, struct arena *arena,
                 struct tensor_set *out, struct unshard_error *error)
{
    struct memory memory = {data, length};
    struct byte_reader reader = {.context = &memory, .size = length, .read = read_memory};
    return safetensors_read(&reader, name, arena, out, error);
}

static int parse_file(const char *data, size_t length, const char *name,
                      struct unshard_error *error)
{
    struct arena arena = {0};
    struct tensor_set set = {0};
    int result = parse(data, length, name, &arena, &set, error);
    arena_free(&arena);
    return result;
}

static void test_corpus(void **state)
{
    (void)state;
    corpus_walk(CORPUS, parse_file, 20);
}

/* Of a download that has brought something else it is told what. */
static void test_foreign_content(void **state)
{
    (void)state;
    static const struct {
        const char *file, *code, *words;
    } rows[] = {
        {"empty", "truncated", "is empty (0 bytes)"},
        {"lfs-pointer", "lfs-pointer", "Git LFS pointer of 118 bytes"},
        {"web-page", "web-page", "title \"Access to this model is restricted\""},
        {"web-page-behind-space", "web-page", "web page (HTML)"},
        {"server-answer", "server-answer", "Repository not found"},
        {"server-answer-xml", "server-answer", "is the answer of a server"},
        {"text", "not-weights", "\"404: Not Found\""},
        {"text-short", "not-weights", "is text of 5 bytes, not safetensors"},
        {"zip", "not-weights", "is a zip archive"},
        {"gguf", "not-weights", "is a GGUF file, not safetensors"},
        {"seven-bytes", "truncated", "too short"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[256];
        size_t length;
        struct unshard_error error = {0};
        snprintf(path, sizeof path, CORPUS "/reject-%s.safetensors", rows[i].file);
        char *data = corpus_read(path, &length);
        assert_true(parse_file(data, length, "FILE", &error) != 0);
        if (strcmp(error.code, rows[i].code) != 0 || strstr(error.message, rows[i].words) == NULL)
            fail_msg("%s: %s: %s", rows[i].file, error.code, error.message);
        free(data);
    }
}

/* What the reference library wrote is what we write for the same tensors, byte for byte. */
static void check_vector(const char *name)
{
    char path[256];
    size_t length;
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct text header = {0};
    struct unshard_error error;
    snprintf(path, sizeof path, CORPUS "/%s", name);
    char *data = corpus_read(path, &length);
    assert_int_equal(parse(data, length, name, &arena, &set, &error), 0);
    const struct tensor *tensors[8];
    assert_true(set.tensor_count <= 8);
    for (size_t i = 0; i < set.tensor_count; i++) {
        tensors[i] = &set.tensors[i];
        if (i > 0)
            assert_true(tensor_canonical_compare(tensors[i - 1], tensors[i]) < 0);
    }
    assert_int_equal(safetensors_write_header(tensors, set.tensor_count, set.metadata,
                                              set.metadata_count, set.metadata != NULL, 8, &header,
                                              &error),
                     0);
    assert_int_equal(header.length, set.data_offset);
    assert_memory_equal(header.data, data, header.length);
    text_free(&header);
    arena_free(&arena);
    free(data);
}

static void test_reference_vectors(void **state)
{
    (void)state;
    check_vector("accept-reference-vector.safetensors");
    check_vector("accept-reference-vector-empty.safetensors");
}

static void test_vector_content(void **state)
{
    (void)state;
    size_t length;
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error;
    char *data = corpus_read(CORPUS "/accept-reference-vector.safetensors", &length);
    assert_int_equal(length, 287);
    assert_int_equal(parse(data, length, "vector", &arena, &set, &error), 0);
    assert_int_equal(set.tensor_count, 4);
    assert_int_equal(set.data_offset, 264);
    static const char *const names[] = {"s", "b", "c", "a"};
    static const uint64_t offsets[] = {264, 272, 280, 284}, lengths[] = {8, 8, 4, 3};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(set.tensors[i].name, names[i]);
        assert_int_equal(set.tensors[i].offset, offsets[i]);
        assert_int_equal(set.tensors[i].length, lengths[i]);
    }
    assert_int_equal(set.tensors[0].rank, 0);
    assert_int_equal(set.metadata_count, 1);
    assert_string_equal(set.metadata[0].key, "format");
    assert_string_equal(set.metadata[0].value, "pt");
    arena_free(&arena);
    free(data);
}

/* A header of many tensors is read in a time that grows with them, not with their square. */
static void test_many_tensors(void **state)
{
    (void)state;
    struct text text = {0};
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error;
    const unsigned count = 200000;
    text_append_string(&text, "{");
    for (unsigned i = 0; i < count; i++)
        text_printf(&text, "%s\"t.%u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%u,%u]}",
                    i > 0 ? "," : "", i, i, i + 1);
    text_append_string(&text, "}");
    assert_int_equal(safetensors_parse(text.data, text.length, 8 + text.length + count, "many",
                                       &arena, &set, &error),
                     0);
    assert_int_equal(set.tensor_count, count);
    arena_free(&arena);
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_foreign_content),
        cmocka_unit_test(test_reference_vectors),
        cmocka_unit_test(test_vector_content),
        cmocka_unit_test(test_many_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
