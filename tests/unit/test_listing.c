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
    (void)state;
    struct unshard_checkpoint *checkpoint = open_tree(
        "s " SNAPSHOT ONE " 4 " HEADER "s " SNAPSHOT TWO " 4 " OTHER "s " SNAPSHOT "sub/" ONE
        " 4 " HEADER "s " SNAPSHOT "sub/" TWO " 4 " OTHER "f " NO_EXIST "c/model.safetensors \n"
        "f " NO_EXIST "c/sub/model.safetensors \nf " NO_EXIST "c/adapter_config.json \n"
        "f " NO_EXIST "d/model.safetensors \nf models--x--y/.no_exist/c/model.safetensors \n",
        UNSHARD_LAYOUT_MERGED);
    assert_listed(checkpoint, SNAPSHOT "model.safetensors", true);
    assert_null(find(checkpoint, NO_EXIST "c/model.safetensors"));
    assert_null(find(checkpoint, NO_EXIST "c/sub/model.safetensors"));
    assert_listed(checkpoint, NO_EXIST "c/adapter_config.json", true);
    assert_listed(checkpoint, NO_EXIST "d/model.safetensors", true);
    assert_listed(checkpoint, "models--x--y/.no_exist/c/model.safetensors", true);
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
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_what_stays),
        cmocka_unit_test(test_hub_markers),
    };
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
