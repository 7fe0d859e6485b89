/* SPDX-License-Identifier: MIT
 *
 * What of a tree is listed, what is only opened by its name, and what is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/tree_input.h"
#include "tree/model.h"

#define HEADER "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}\n"
#define OTHER "{\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}\n"
#define ONE "model-00001-of-00002.safetensors"
#define TWO "model-00002-of-00002.safetensors"

static char top[] = "/tmp/unshard-listing-XXXXXX";

static struct unshard_checkpoint *open_tree(const char *text, enum unshard_layout layout)
{
    struct unshard_view_options options = {.layout = layout};
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_error error = {0};
    char source[PATH_MAX];
    tree_make(top, (const uint8_t *)text, strlen(text), source);
    assert_int_equal(unshard_checkpoint_open(source, &options, &checkpoint, &error), 0);
    return checkpoint;
}

static void close_tree(struct unshard_checkpoint *checkpoint)
{
    unshard_checkpoint_close(checkpoint);
    tree_clear(top);
}

/* The node at a path, or NULL. */
static const struct unshard_node *find(const struct unshard_checkpoint *checkpoint,
                                       const char *path)
{
    const struct unshard_node *node = unshard_node(checkpoint, 0);
    char copy[256], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *part; node != NULL && (part = strsep(&rest, "/")) != NULL;)
        node = unshard_node_child(checkpoint, unshard_node_number(checkpoint, node), part);
    return node;
}

static void assert_listed(const struct unshard_checkpoint *checkpoint, const char *path,
                          bool listed)
{
    const struct unshard_node *node = find(checkpoint, path);
    if (node == NULL || node->unlisted == listed)
        fail_msg("%s is %s", path, node == NULL ? "missing" : listed ? "not listed" : "listed");
    if (node->view != UNSHARD_NO_VIEW)
        assert_int_equal(unshard_view_listed(checkpoint, node->view), listed);
}

static void test_shards(void **state)
{
    static const char tree[] = "s " ONE " 4 " HEADER "s " TWO " 4 " OTHER;
    (void)state;
    struct unshard_checkpoint *checkpoint = open_tree(tree, UNSHARD_LAYOUT_MERGED);
    assert_listed(checkpoint, "model.safetensors", true);
    assert_listed(checkpoint, ONE, false);
    assert_listed(checkpoint, TWO, false);
    close_tree(checkpoint);
    checkpoint = open_tree(tree, UNSHARD_LAYOUT_BOTH);
    assert_listed(checkpoint, "model.safetensors", true);
    assert_listed(checkpoint, ONE, true);
    close_tree(checkpoint);
}

static const struct component *component_of(const struct unshard_checkpoint *checkpoint,
                                            const char *path)
{
    const struct unshard_node *node = find(checkpoint, path);
    int32_t number = node != NULL ? unshard_view_component(checkpoint, node->view) : -1;
    return number >= 0 ? &checkpoint->components[number] : NULL;
}

static void assert_noted(const struct component *component, const char *what)
{
    for (uint32_t i = 0; i < component->note_count; i++)
        if (strstr(component->notes[i], what) != NULL)
            return;
    fail_msg("%s: no note of %s", component->name, what);
}

/* A component is its files, in the order of shards, and there is nothing else. */
static void test_directory_as_it_is(void **state)
{
    (void)state;
    struct unshard_checkpoint *checkpoint = open_tree(
        "s a/" ONE " 4 " HEADER "s a/" TWO " 4 " OTHER
        "f a/model.safetensors.index.json {\"weight_map\":{\"x\":\"" ONE "\",\"y\":\"" TWO "\"}}\n"
        "s vae/x.safetensors 4 " HEADER "f t/pytorch_model.bin no weights\n",
        UNSHARD_LAYOUT_SHARDS);
    const struct component *set = component_of(checkpoint, "a/" ONE);
    assert_int_equal(checkpoint->component_count, 3);
    assert_int_equal(find(checkpoint, "a")->child_count, 3);
    assert_ptr_equal(component_of(checkpoint, "a/" TWO), set);
    assert_null(component_of(checkpoint, "a/model.safetensors.index.json"));
    assert_true(set->view == UNSHARD_NO_VIEW && set->view_path == NULL && !set->failed);
    assert_int_equal(set->file_count, 2);
    assert_string_equal(checkpoint->files[set->files[1]].path, "a/" TWO);
    assert_int_equal(set->tensor_count, 2);
    assert_int_equal(set->bytes,
                     find(checkpoint, "a/" ONE)->size + find(checkpoint, "a/" TWO)->size);
    assert_int_equal(set->note_count, 0);
    assert_string_equal(component_of(checkpoint, "vae/x.safetensors")->view_path,
                        "vae/x.safetensors");
    assert_int_equal(find(checkpoint, "t")->child_count, 1);
    assert_non_null(component_of(checkpoint, "t/pytorch_model.bin"));
    close_tree(checkpoint);
}

/* Nobody fails for what is missing, nor for what a file says of itself. */
static void test_faults_are_noted(void **state)
{
    (void)state;
    struct unshard_checkpoint *checkpoint =
        open_tree("s missing/" ONE " 4 " HEADER "s cut/" ONE " 3 " HEADER "s cut/" TWO " 4 " OTHER
                  "f junk/model.safetensors <!DOCTYPE html>\n"
                  "s index/" ONE " 4 " HEADER "f index/model.safetensors.index.json {]\n",
                  UNSHARD_LAYOUT_SHARDS);
    assert_int_equal(checkpoint->component_count, 4);
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        assert_false(checkpoint->components[i].failed);
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        assert_false(checkpoint->files[i].failed);
    assert_noted(component_of(checkpoint, "missing/" ONE), "shard 2 of 2 is missing");
    assert_int_equal(component_of(checkpoint, "missing/" ONE)->file_count, 1);
    assert_noted(component_of(checkpoint, "cut/" TWO), "cut/" ONE);
    assert_noted(component_of(checkpoint, "junk/model.safetensors"), "web page");
    assert_noted(component_of(checkpoint, "index/" ONE), "model.safetensors.index.json");
    assert_listed(checkpoint, "index/model.safetensors.index.json", true);
    assert_int_equal(find(checkpoint, "missing")->child_count, 1);
    close_tree(checkpoint);
}

/* Of each extension that is not looked into, and of what is no PyTorch file whatever its name. */
static void test_what_stays(void **state)
{
    static const char *const names[] = {
        "a/x.pt", "a/x.pth", "a/x.ckpt", "b/x.bin", "c/pytorch_model.bin", "c/config.json"};
    (void)state;
    struct unshard_checkpoint *checkpoint =
        open_tree("f a/x.pt 1\nf a/x.pth 2\nf a/x.ckpt 3\nf b/x.bin 4\n"
                  "f c/pytorch_model.bin no weights\nf c/config.json {}\n",
                  UNSHARD_LAYOUT_MERGED);
    assert_int_equal(checkpoint->component_count, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_listed(checkpoint, names[i], true);
    assert_int_equal(checkpoint->nodes[0].child_count, 3);
    assert_int_equal(find(checkpoint, "a")->child_count, 3);
    assert_int_equal(find(checkpoint, "c")->child_count, 2);
    close_tree(checkpoint);
}

/* Only markers of what is added are hidden, in this repository and commit. */
static void test_hub_markers(void **state)
{
#define SNAPSHOT "models--a--b/snapshots/c/"
#define NO_EXIST "models--a--b/.no_exist/"
    static const char tree[] =
        "s " SNAPSHOT ONE " 4 " HEADER "s " SNAPSHOT TWO " 4 " OTHER "s " SNAPSHOT "sub/" ONE
        " 4 " HEADER "s " SNAPSHOT "sub/" TWO " 4 " OTHER "f " NO_EXIST "c/model.safetensors \n"
        "f " NO_EXIST "c/sub/model.safetensors \nf " NO_EXIST "c/adapter_config.json \n"
        "f " NO_EXIST "d/model.safetensors \nf models--x--y/.no_exist/c/model.safetensors \n";
    (void)state;
    struct unshard_checkpoint *checkpoint = open_tree(tree, UNSHARD_LAYOUT_MERGED);
    assert_listed(checkpoint, SNAPSHOT "model.safetensors", true);
    assert_null(find(checkpoint, NO_EXIST "c/model.safetensors"));
    assert_null(find(checkpoint, NO_EXIST "c/sub/model.safetensors"));
    assert_listed(checkpoint, NO_EXIST "c/adapter_config.json", true);
    assert_listed(checkpoint, NO_EXIST "d/model.safetensors", true);
    assert_listed(checkpoint, "models--x--y/.no_exist/c/model.safetensors", true);
    close_tree(checkpoint);
    checkpoint = open_tree(tree, UNSHARD_LAYOUT_SHARDS);
    assert_listed(checkpoint, NO_EXIST "c/model.safetensors", true);
    close_tree(checkpoint);
}

static int make_top(void **state)
{
    (void)state;
    return mkdtemp(top) != NULL ? 0 : -1;
}

static int remove_top(void **state)
{
    (void)state;
    tree_clear(top);
    return rmdir(top);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),           cmocka_unit_test(test_directory_as_it_is),
        cmocka_unit_test(test_faults_are_noted), cmocka_unit_test(test_what_stays),
        cmocka_unit_test(test_hub_markers),
    };
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
