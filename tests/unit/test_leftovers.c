/* SPDX-License-Identifier: MIT
 *
 * Files that lie beside a checkpoint and are none of it. */
#include "support/safetensors_fixture.h"
#include "tree/leftover_name.h"
#include "tree/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#define APPLE "\x05\x16\x07Mac OS X"

static void leftovers_are_known_by_their_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is;
    } rows[] = {
        {"._model.safetensors", true},
        {"sub/.DS_Store", true},
        {"model.safetensors.part", true},
        {"model.safetensors.incomplete", true},
        {"model.safetensors.aria2", true},
        {"model.safetensors.tmp", true},
        {"model.safetensors~", true},
        {".model.safetensors.a1B2c3", true},
        {".model-00001-of-00002.safetensors.index.json.swp", true},
        {".#config.json", true},
        {".nfs0000000004ab3c0200000001", true},
        {".metadata", false},
        {".gitattributes", false},
        {".sixsix", false},
        {".part", false},
        {"part", false},
        {"model.safetensors", false},
        {"a.tmp/config.json", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (leftover_name(rows[i].name) != rows[i].is)
            fail_msg("%s", rows[i].name);
}

/* Two shards and their index below a directory, which may be "". */
static void save(const char *root, const char *directory)
{
    static const struct fixture_tensor one = {"a", "U8", 4, 1}, two = {"b", "U8", 4, 1};
    char name[256];
    snprintf(name, sizeof name, "%smodel-00001-of-00002.safetensors", directory);
    fixture_safetensors(root, name, NULL, &one, 1, 0);
    snprintf(name, sizeof name, "%smodel-00002-of-00002.safetensors", directory);
    fixture_safetensors(root, name, NULL, &two, 1, 0);
    snprintf(name, sizeof name, "%smodel.safetensors.index.json", directory);
    fixture_text(root, name,
                 "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
                 "\"b\":\"model-00002-of-00002.safetensors\"}}");
}

static struct unshard_checkpoint *open_checkpoint(const char *root)
{
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_error error = {0};
    if (unshard_checkpoint_open(root, NULL, &checkpoint, &error) != 0)
        fail_msg("%s", error.message);
    return checkpoint;
}

static bool is_shown(const struct unshard_checkpoint *checkpoint, const char *path)
{
    for (uint32_t i = 0; i < checkpoint->view_count; i++)
        if (strcmp(checkpoint->views[i].path, path) == 0)
            return true;
    return false;
}

static void leftovers_are_no_part_of_a_checkpoint(void **state)
{
    (void)state;
    static const char *const names[] = {
        "._model-00001-of-00002.safetensors",
        "._model.safetensors.index.json",
        "._SHA256SUMS",
        "._model.safetensors.sha256",
        "._pytorch_model.bin",
        "._model.gguf",
        "._config.json",
        ".DS_Store",
        ".model-00001-of-00002.safetensors.a1B2c3",
        ".~tmp~.safetensors",
        "model-00001-of-00002.safetensors.incomplete",
        "model-00002-of-00002.safetensors.part",
        "model-00002-of-00002.safetensors.aria2",
        "model.safetensors.index.json.tmp",
        ".no_exist/0123/model.safetensors",
        ".ipynb_checkpoints/model-00001-of-00002.safetensors",
    };
    char *root = fixture_directory();
    save(root, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        fixture_text(root, names[i], APPLE);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->component_count, 1);
    assert_false(checkpoint->components[0].failed);
    assert_int_equal((int)checkpoint->components[0].file_count, 2);
    assert_int_equal(checkpoint->problem_count, 0);
    assert_true(is_shown(checkpoint, "model.safetensors"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!is_shown(checkpoint, names[i]))
            fail_msg("%s is not shown", names[i]);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* ~/.cache/huggingface/hub, when the home directory is mounted. */
static void a_hub_cache_may_be_hidden(void **state)
{
    (void)state;
    char *root = fixture_directory();
    save(root, ".cache/huggingface/hub/models--a--b/snapshots/main/");
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->component_count, 1);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void leftovers_are_not_sealed(void **state)
{
    (void)state;
    char *root = fixture_directory();
    struct unshard_report *report = NULL;
    struct unshard_error error = {0};
    save(root, "");
    fixture_text(root, "._config.json", APPLE);
    fixture_text(root, "config.json.part", "{");
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    if (unshard_seal(checkpoint, NULL, true, NULL, NULL, &report, &error) != 0)
        fail_msg("%s", error.message);
    assert_int_equal(report->file_count, 3);
    unshard_report_free(report);
    unshard_checkpoint_close(checkpoint);
    unlink(fixture_path(root, "._config.json"));
    checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->missing_count, 0);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

static void an_unfinished_download_is_no_error(void **state)
{
    (void)state;
    char *root = fixture_directory();
    save(root, "");
    unlink(fixture_path(root, "model-00002-of-00002.safetensors"));
    fixture_text(root, "model-00002-of-00002.safetensors.incomplete", "");
    for (unsigned i = 0; i < 2; i++) {
        struct unshard_checkpoint *checkpoint = open_checkpoint(root);
        const char *note = checkpoint->note_count > 0 ? checkpoint->notes[0] : "no note";
        if (strstr(note, "is missing; its download has not come to its end: there is "
                         "model-00002-of-00002.safetensors.incomplete") == NULL)
            fail_msg("%s", note);
        /* Nothing is wrong with it: what is there yet is shown. */
        for (uint32_t k = 0; k < checkpoint->component_count; k++)
            assert_false(checkpoint->components[k].failed);
        assert_non_null(unshard_node_child(checkpoint, 0, "model-00001-of-00002.safetensors"));
        assert_null(unshard_node_child(checkpoint, 0, "model.safetensors"));
        unshard_checkpoint_close(checkpoint);
        unlink(fixture_path(root, "model.safetensors.index.json"));
    }
    fixture_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftovers_are_known_by_their_names),
        cmocka_unit_test(leftovers_are_no_part_of_a_checkpoint),
        cmocka_unit_test(a_hub_cache_may_be_hidden),
        cmocka_unit_test(leftovers_are_not_sealed),
        cmocka_unit_test(an_unfinished_download_is_no_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
