/* SPDX-License-Identifier: MIT
 *
 * The corpora of PyTorch's formats, and what their readers say about good files. */
#include "formats/dcp/dcp_metadata.h"
#include "formats/torch/pickle_machine.h"
#include "formats/torch/torch_file.h"
#include "formats/torch/zip_archive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/named_corpus.h"

static int parse_zip(struct corpus_file *file, struct unshard_error *error)
{
    struct arena arena = {0};
    struct zip_archive archive;
    struct byte_reader reader = corpus_reader(file);
    int result = zip_archive_read(&reader, "file", &arena, &archive, error);
    for (uint32_t i = 0; result == 0 && i < archive.count; i++)
        assert_true(archive.entries[i].data_offset + archive.entries[i].size <= file->size);
    zip_archive_free(&archive);
    arena_free(&arena);
    return result;
}

static int parse_pickle(struct corpus_file *file, struct unshard_error *error)
{
    struct arena arena = {0};
    struct pickle_result pickle;
    struct pickle_input input = {.bytes = file->data, .length = file->size, .path = "file"};
    int result = pickle_read(&input, &arena, &pickle, error);
    if (result == 0)
        assert_int_equal(pickle.consumed, file->size);
    arena_free(&arena);
    return result;
}

static int parse_torch(struct corpus_file *file, struct unshard_error *error)
{
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct byte_reader reader = corpus_reader(file);
    int result = torch_file_read(&reader, "file", &arena, &set, error);
    if (result == 0)
        assert_true(set.tensor_count > 0);
    arena_free(&arena);
    return result;
}

static int parse_dcp(struct corpus_file *file, struct unshard_error *error)
{
    struct arena arena = {0};
    struct dcp_metadata metadata;
    int result = dcp_metadata_parse(file->data, file->size, "file", &arena, &metadata, error);
    arena_free(&arena);
    return result;
}

static void test_zip_corpus(void **state)
{
    (void)state;
    named_corpus_walk("tests/corpus/zip_archive", 40, parse_zip);
}

static void test_pickle_corpus(void **state)
{
    (void)state;
    named_corpus_walk("tests/corpus/pickle", 65, parse_pickle);
}

static void test_torch_corpus(void **state)
{
    (void)state;
    named_corpus_walk("tests/corpus/torch_file", 95, parse_torch);
}

static void test_dcp_corpus(void **state)
{
    (void)state;
    named_corpus_walk("tests/corpus/dcp", 35, parse_dcp);
}

/* What is not a state dict is told from what is broken: the former is shown as it is. */
static void test_not_supported(void **state)
{
    static const struct {
        const char *name;
        int result;
    } files[] = {{"reject-not-a-state-dict--script.pt", -ENOTSUP},
                 {"reject-not-a-state-dict--some-text.pt", -ENOTSUP},
                 {"reject-unsupported-pickle--complex128.pt", -ENOTSUP},
                 {"reject-hostile-pickle--os-system.pt", -EPERM},
                 {"reject-malformed-pickle--stride-negative.pt", -EINVAL},
                 {"reject-malformed-zip--storage-short.pt", -EINVAL}};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct corpus_file file = corpus_load("tests/corpus/torch_file", files[i].name);
        struct unshard_error error = {0};
        assert_int_equal(parse_torch(&file, &error), files[i].result);
        free(file.data);
    }
}

/* The message tells global, opcode and the byte in the file. */
static void test_hostile_is_named(void **state)
{
    (void)state;
    struct corpus_file file =
        corpus_load("tests/corpus/torch_file", "reject-hostile-pickle--os-system.pt");
    struct unshard_error error = {0};
    assert_int_equal(parse_torch(&file, &error), -EPERM);
    assert_non_null(strstr(error.message, "os.system"));
    assert_non_null(strstr(error.message, "GLOBAL"));
    assert_memory_equal(file.data + error.offset, "cos\nsystem\n", 11);
    free(file.data);
}

/* The layout is known although the end of the data is missing. */
static void test_truncated_legacy(void **state)
{
    (void)state;
    struct corpus_file file =
        corpus_load("tests/corpus/torch_file", "reject-truncated--legacy-last-storage.pt");
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error = {0};
    struct byte_reader reader = corpus_reader(&file);
    assert_int_not_equal(torch_file_read(&reader, "file", &arena, &set, &error), 0);
    assert_string_equal(error.code, "truncated");
    assert_int_equal(set.tensor_count, 1);
    assert_int_equal(set.tensors[0].offset + set.tensors[0].length, file.size + 1);
    arena_free(&arena);
    free(file.data);
}

static void test_names(void **state)
{
    static const struct {
        const char *stem, *extension, *shown;
        enum format_claim claim;
    } names[] = {
        {"pytorch_model", "bin", "model", FORMAT_CLAIM_WEIGHTS},
        {"pytorch_model_fsdp", "bin", "model_fsdp", FORMAT_CLAIM_WEIGHTS},
        {"diffusion_pytorch_model", "bin", "diffusion_pytorch_model", FORMAT_CLAIM_WEIGHTS},
        {"open_clip_pytorch_model", "bin", "open_clip_model", FORMAT_CLAIM_WEIGHTS},
        {"adapter_model", "bin", NULL, FORMAT_CLAIM_NONE},
        {"training_args", "bin", NULL, FORMAT_CLAIM_NONE},
        {"model", "bin", NULL, FORMAT_CLAIM_NONE},
        {"consolidated", "pth", "consolidated", FORMAT_CLAIM_PERHAPS},
        {"optimizer", "pt", "optimizer", FORMAT_CLAIM_PERHAPS},
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char shown[64];
        assert_int_equal(torch_file_claim(names[i].stem, names[i].extension, shown, sizeof shown),
                         names[i].claim);
        if (names[i].shown != NULL)
            assert_string_equal(shown, names[i].shown);
    }
    char small[4];
    assert_int_equal(torch_file_claim("pytorch_model", "bin", small, sizeof small),
                     FORMAT_CLAIM_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zip_corpus),       cmocka_unit_test(test_pickle_corpus),
        cmocka_unit_test(test_torch_corpus),     cmocka_unit_test(test_dcp_corpus),
        cmocka_unit_test(test_not_supported),    cmocka_unit_test(test_hostile_is_named),
        cmocka_unit_test(test_truncated_legacy), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
