/* SPDX-License-Identifier: MIT */
#include "tree/shard_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct row {
    const char *name;
    enum weight_name_kind kind;
    const char *stem, *variant, *extension;
    uint32_t number, total;
    const char *merged, *index;
} rows[] = {
    {"model.safetensors", WEIGHT_NAME_SINGLE, "model", "", "safetensors", 0, 0, "model.safetensors",
     "model.safetensors.index.json"},
    {"diffusion_pytorch_model.fp16.safetensors", WEIGHT_NAME_SINGLE, "diffusion_pytorch_model",
     "fp16", "safetensors", 0, 0, "diffusion_pytorch_model.fp16.safetensors",
     "diffusion_pytorch_model.safetensors.index.fp16.json"},
    {"model-00001-of-00005.safetensors", WEIGHT_NAME_SHARD, "model", "", "safetensors", 1, 5,
     "model.safetensors", "model.safetensors.index.json"},
    {"model-00007-of-000163.safetensors", WEIGHT_NAME_SHARD, "model", "", "safetensors", 7, 163,
     "model.safetensors", "model.safetensors.index.json"},
    {"model_00001-of-00072.safetensors", WEIGHT_NAME_SHARD, "model", "", "safetensors", 1, 72,
     "model.safetensors", "model.safetensors.index.json"},
    {"model.fp16-00001-of-00002.safetensors", WEIGHT_NAME_SHARD, "model", "fp16", "safetensors", 1,
     2, "model.fp16.safetensors", "model.safetensors.index.fp16.json"},
    {"model-00002-of-00002.fp16.safetensors", WEIGHT_NAME_SHARD, "model", "fp16", "safetensors", 2,
     2, "model.fp16.safetensors", "model.safetensors.index.fp16.json"},
    {"consolidated-00001-of-00003.safetensors", WEIGHT_NAME_SHARD, "consolidated", "",
     "safetensors", 1, 3, "consolidated.safetensors", "consolidated.safetensors.index.json"},
    {"shard-00001-model-00001-of-00002.safetensors", WEIGHT_NAME_SHARD, "model", "", "safetensors",
     1, 2, "model.safetensors", "model.safetensors.index.json"},
    {"shard-00012-model.fp16-00001-of-00001.safetensors", WEIGHT_NAME_SHARD, "model", "fp16",
     "safetensors", 1, 1, "model.fp16.safetensors", "model.safetensors.index.fp16.json"},
    {"shard-00000-model-00001-of-00002.safetensors", WEIGHT_NAME_SHARD, "shard-00000-model", "",
     "safetensors", 1, 2, "shard-00000-model.safetensors",
     "shard-00000-model.safetensors.index.json"},
    {"shard-00001--00001-of-00002.safetensors", WEIGHT_NAME_SHARD, "shard-00001-", "",
     "safetensors", 1, 2, "shard-00001-.safetensors", "shard-00001-.safetensors.index.json"},
    {"shard-1-model-00001-of-00002.safetensors", WEIGHT_NAME_SHARD, "shard-1-model", "",
     "safetensors", 1, 2, "shard-1-model.safetensors", "shard-1-model.safetensors.index.json"},
    {"pytorch_model-00001-of-00002.bin", WEIGHT_NAME_SHARD, "pytorch_model", "", "bin", 1, 2,
     "pytorch_model.bin", "pytorch_model.bin.index.json"},
    {"model.safetensors.index.json", WEIGHT_NAME_INDEX, "model", "", "safetensors", 0, 0,
     "model.safetensors", "model.safetensors.index.json"},
    {"model.safetensors.index.fp16.json", WEIGHT_NAME_INDEX, "model", "fp16", "safetensors", 0, 0,
     "model.fp16.safetensors", "model.safetensors.index.fp16.json"},
    {"model.safetensors.fp16.index.json", WEIGHT_NAME_INDEX, "model", "fp16", "safetensors", 0, 0,
     "model.fp16.safetensors", "model.safetensors.index.fp16.json"},
    {"model-00000-of-00002.safetensors", WEIGHT_NAME_SHARD, "model", "", "safetensors", 0, 2,
     "model.safetensors", "model.safetensors.index.json"},
    {"model-1-of-2.safetensors", WEIGHT_NAME_SINGLE, "model-1-of-2", "", "safetensors", 0, 0,
     "model-1-of-2.safetensors", "model-1-of-2.safetensors.index.json"},
    {"-00001-of-00002.safetensors", WEIGHT_NAME_SINGLE, "-00001-of-00002", "", "safetensors", 0, 0,
     "-00001-of-00002.safetensors", "-00001-of-00002.safetensors.index.json"},
    {"a-9999999999-of-9999999999.safetensors", WEIGHT_NAME_SINGLE, "a-9999999999-of-9999999999", "",
     "safetensors", 0, 0, "a-9999999999-of-9999999999.safetensors",
     "a-9999999999-of-9999999999.safetensors.index.json"},
    {"config.json", WEIGHT_NAME_SINGLE, "config", "", "json", 0, 0, "config.json",
     "config.json.index.json"},
};

static void ranks_are_told(void **state)
{
    static const struct {
        const char *name;
        uint32_t rank;
    } ranks[] = {{"model-00001-of-00002.safetensors", 0},
                 {"shard-00001-model-00001-of-00002.safetensors", 1},
                 {"shard-00012-model.fp16-00001-of-00001.safetensors", 12},
                 {"shard-00000-model-00001-of-00002.safetensors", 0},
                 {"shard-00001--00001-of-00002.safetensors", 0},
                 {"shard-1-model-00001-of-00002.safetensors", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        struct weight_name name;
        assert_true(weight_name_parse(ranks[i].name, &name));
        assert_int_equal(name.rank, ranks[i].rank);
    }
}

static void names_are_taken_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct weight_name name;
        char text[WEIGHT_NAME_CAPACITY];
        print_message("%s\n", rows[i].name);
        assert_true(weight_name_parse(rows[i].name, &name));
        assert_int_equal(name.kind, rows[i].kind);
        assert_string_equal(name.stem, rows[i].stem);
        assert_string_equal(name.variant, rows[i].variant);
        assert_string_equal(name.extension, rows[i].extension);
        assert_int_equal(name.number, rows[i].number);
        assert_int_equal(name.total, rows[i].total);
        assert_true(weight_name_merged(&name, text));
        assert_string_equal(text, rows[i].merged);
        assert_true(weight_name_index(&name, text));
        assert_string_equal(text, rows[i].index);
    }
}

static void other_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"",       ".",   "..",   "...", "README", ".safetensors",
                                        "model.", "a..", ".json"};
    struct weight_name name;
    char too_long[400];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_false(weight_name_parse(names[i], &name));
    memset(too_long, 'a', sizeof too_long);
    memcpy(too_long + sizeof too_long - 5, ".bin", 5);
    assert_false(weight_name_parse(too_long, &name));
}

static void a_dot_in_the_stem_keeps_the_set_together(void **state)
{
    (void)state;
    struct weight_name shard, index;
    char one[WEIGHT_NAME_CAPACITY], two[WEIGHT_NAME_CAPACITY];
    assert_true(weight_name_parse("Llama-3.1-8B-00001-of-00002.safetensors", &shard));
    assert_true(weight_name_parse("Llama-3.1-8B.safetensors.index.json", &index));
    assert_int_equal(index.kind, WEIGHT_NAME_INDEX);
    assert_string_equal(weight_name_base(&shard, one), weight_name_base(&index, two));
    assert_string_equal(one, "Llama-3.1-8B");
}

static void both_spellings_of_a_variant_are_one_set(void **state)
{
    (void)state;
    struct weight_name now, legacy;
    char one[WEIGHT_NAME_CAPACITY], two[WEIGHT_NAME_CAPACITY];
    assert_true(weight_name_parse("m.fp16-00001-of-00002.safetensors", &now));
    assert_true(weight_name_parse("m-00001-of-00002.fp16.safetensors", &legacy));
    assert_false(now.legacy);
    assert_true(legacy.legacy);
    assert_string_equal(weight_name_base(&now, one), weight_name_base(&legacy, two));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_taken_apart),
        cmocka_unit_test(ranks_are_told),
        cmocka_unit_test(other_names_are_refused),
        cmocka_unit_test(a_dot_in_the_stem_keeps_the_set_together),
        cmocka_unit_test(both_spellings_of_a_variant_are_one_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
