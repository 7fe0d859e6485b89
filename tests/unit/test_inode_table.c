/* SPDX-License-Identifier: MIT
 *
 * What the kernel knows: which paths are one node, for how long there is one, and what the engine
 * is told of it. The engine and what views are the same by are stand-ins. */
#include "fs/kernel/inode_table.c"
#include "fs/kernel/kept_nodes.c"

#include "tree/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

/* A directory with a file a, a file b, a directory d and a symlink l. */
enum { NODE_A = 1, NODE_B, NODE_D, NODE_L, NODES };

struct layout {
    struct unshard_checkpoint checkpoint;
    struct unshard_node nodes[NODES];
    struct view views[2];
    unsigned char identities[2]; /* of a and b */
};

static struct layout first, second;

static void make_layout(struct layout *layout, unsigned char a, unsigned char b)
{
    static const char *const names[] = {"", "a", "b", "d", "l"};
    *layout = (struct layout){.identities = {a, b}};
    for (uint32_t i = 0; i < NODES; i++)
        layout->nodes[i] = (struct unshard_node){.name = names[i],
                                                 .kind = UNSHARD_NODE_FILE,
                                                 .view = i - 1,
                                                 .size = 100 * i,
                                                 .inode = 1000 + i};
    layout->nodes[0].kind = layout->nodes[NODE_D].kind = UNSHARD_NODE_DIRECTORY;
    layout->nodes[NODE_L].kind = UNSHARD_NODE_SYMLINK;
    layout->nodes[NODE_L].target = "a";
    layout->nodes[0].first_child = 1;
    layout->nodes[0].child_count = NODES - 1;
    layout->nodes[0].view = layout->nodes[NODE_D].view = layout->nodes[NODE_L].view =
        UNSHARD_NO_VIEW;
    layout->checkpoint = (struct unshard_checkpoint){.nodes = layout->nodes,
                                                     .node_count = NODES,
                                                     .views = layout->views,
                                                     .view_count = 2,
                                                     .holders = 1};
}

/* The engine: a number for each identity. */
static struct {
    unsigned attached[256]; /* by number: how often, less detached */
    unsigned known_calls, gone_calls;
    int told[2]; /* of first and second, how often */
    int fails;
} engine;
#define ENGINE ((struct unshard_engine *)(uintptr_t)&engine)

void __wrap_unshard_view_identity(const struct unshard_checkpoint *checkpoint, uint32_t view,
                                  unsigned char out[16]);
int __wrap_unshard_engine_attach(struct unshard_engine *of, struct unshard_checkpoint *layout,
                                 uint32_t local, uint32_t *view, struct unshard_error *error);
void __wrap_unshard_engine_detach(struct unshard_engine *of, uint32_t view);
void __wrap_unshard_engine_view_known(struct unshard_engine *of, uint32_t view, bool known);

void __wrap_unshard_view_identity(const struct unshard_checkpoint *checkpoint, uint32_t view,
                                  unsigned char out[16])
{
    memset(out, 0, 16);
    out[0] = ((const struct layout *)(const void *)checkpoint)->identities[view];
}

int __wrap_unshard_engine_attach(struct unshard_engine *of, struct unshard_checkpoint *layout,
                                 uint32_t local, uint32_t *view, struct unshard_error *error)
{
    assert_ptr_equal(of, ENGINE);
    if (engine.fails)
        return unshard_error_set(error, "too-many-files", engine.fails, "no");
    *view = ((const struct layout *)(const void *)layout)->identities[local];
    engine.attached[*view]++;
    return 0;
}

void __wrap_unshard_engine_detach(struct unshard_engine *of, uint32_t view)
{
    assert_ptr_equal(of, ENGINE);
    assert_true(engine.attached[view] > 0);
    engine.attached[view]--;
}

void __wrap_unshard_engine_view_known(struct unshard_engine *of, uint32_t view, bool known)
{
    assert_ptr_equal(of, ENGINE);
    assert_true(engine.attached[view] > 0); /* never of what is not attached */
    known ? engine.known_calls++ : engine.gone_calls++;
}

int __wrap_unshard_engine_tell(struct unshard_engine *of, struct unshard_checkpoint *layout);
void __wrap_unshard_engine_tell_no_more(struct unshard_engine *of,
                                        struct unshard_checkpoint *layout);

int __wrap_unshard_engine_tell(struct unshard_engine *of, struct unshard_checkpoint *layout)
{
    assert_ptr_equal(of, ENGINE);
    engine.told[layout == &second.checkpoint]++;
    return 0;
}

void __wrap_unshard_engine_tell_no_more(struct unshard_engine *of,
                                        struct unshard_checkpoint *layout)
{
    assert_ptr_equal(of, ENGINE);
    assert_true(engine.told[layout == &second.checkpoint]-- > 0);
}

static int setup(void **state)
{
    memset(&engine, 0, sizeof engine);
    make_layout(&first, 10, 11);
    make_layout(&second, 20, 11);
    struct inode_table *table = inode_table_new(&first.checkpoint);
    assert_non_null(table);
    inode_table_set_engine(table, ENGINE);
    *state = table;
    return 0;
}

static int teardown(void **state)
{
    inode_table_free(*state);
    /* Nobody holds a layout any more but who made it. */
    assert_int_equal(first.checkpoint.holders, 1);
    assert_int_equal(second.checkpoint.holders, 1);
    return 0;
}

static struct inode *seen(struct inode_table *table, const char *path, struct layout *layout,
                          uint32_t node)
{
    struct unshard_place place = {.layout = &layout->checkpoint, .node = node};
    struct inode *inode = inode_table_enter(table, path, &place);
    assert_non_null(inode);
    return inode;
}

/* As a LOOKUP does; without a reference. */
static uint64_t look_up(struct inode_table *table, const char *path, struct layout *layout,
                        uint32_t node)
{
    struct inode *inode = seen(table, path, layout, node);
    uint64_t id = inode->id;
    inode_table_lookup(table, inode);
    inode_table_replied(table, inode);
    inode_table_put(table, inode);
    return id;
}

static bool exists(struct inode_table *table, uint64_t id)
{
    struct inode *inode = inode_table_get(table, id);
    inode_table_put(table, inode);
    return inode != NULL;
}

static void attach_id(struct inode_table *table, uint64_t id)
{
    struct inode *inode = inode_table_get(table, id);
    assert_non_null(inode);
    assert_int_equal(inode_table_attach(table, inode, NULL), 0);
    inode_table_put(table, inode);
}

static void test_the_root(void **state)
{
    struct inode *root = inode_table_get(*state, INODE_ROOT);
    assert_non_null(root);
    assert_string_equal(root->path, "");
    assert_int_equal(root->number, 1000);
    inode_table_put(*state, root);
    inode_table_forget(*state, INODE_ROOT, 1);
    assert_true(exists(*state, INODE_ROOT));
    assert_null(inode_table_get(*state, 0));
    assert_null(inode_table_get(*state, 2));
}

static void test_one_view_is_one_node(void **state)
{
    uint64_t a = look_up(*state, "a", &first, NODE_A);
    uint64_t b = look_up(*state, "b", &first, NODE_B);
    assert_true(a >= INODE_FIRST);
    assert_int_not_equal(a, b);
    assert_int_equal(look_up(*state, "a", &first, NODE_A), a);
    /* b of another layout, by another name: the same view. */
    struct inode *inode = seen(*state, "snapshots/b", &second, NODE_B);
    assert_int_equal(inode->id, b);
    assert_int_equal(inode->number, 1000 + NODE_B);
    struct inode_sight sight;
    assert_int_equal(inode_table_sight(*state, inode, &sight), 0);
    assert_string_equal(sight.path, "snapshots/b");
    assert_ptr_equal(sight.place.layout, &second.checkpoint);
    inode_sight_release(&sight);
    inode_table_put(*state, inode);
    /* a, which is another view by now. */
    assert_int_not_equal(look_up(*state, "a", &second, NODE_A), a);
    assert_true(exists(*state, a));
}

static bool is_held(struct inode_table *table, const struct inode *inode)
{
    struct inode_sight sight;
    assert_int_equal(inode_table_sight(table, inode, &sight), 0);
    bool held = sight.place.layout != NULL;
    inode_sight_release(&sight);
    return held;
}

static void test_layouts_are_not_held_for_nothing(void **state)
{
    struct unshard_error error;
    inode_table_tidy(*state, 10000);
    uint64_t a = look_up(*state, "a", &first, NODE_A);
    struct inode *b = inode_table_get(*state, look_up(*state, "b", &first, NODE_B));
    assert_int_equal(inode_table_attach(*state, b, &error), 0);
    inode_table_tidy(*state, 11000);
    struct inode *inode = inode_table_get(*state, a);
    assert_true(is_held(*state, inode));
    inode_table_tidy(*state, 12500); /* somebody works with it */
    assert_true(is_held(*state, inode));
    inode_table_put(*state, inode);
    inode_table_tidy(*state, 13500);
    inode = inode_table_get(*state, a);
    assert_false(is_held(*state, inode));
    assert_int_equal(inode_table_attach(*state, inode, &error), -EAGAIN);
    inode_table_put(*state, seen(*state, "a", &first, NODE_A)); /* it is seen again */
    assert_true(is_held(*state, inode));
    inode_table_put(*state, inode);
    assert_true(is_held(*state, b)); /* it is attached */
    inode_table_put(*state, b);
}

static void test_many_layouts_are_not_held_for_a_moment(void **state)
{
    inode_table_tidy(*state, 10000);
    uint64_t a = look_up(*state, "a", &first, NODE_A);
    inode_table_tidy(*state, 10001);
    struct inode *inode = inode_table_get(*state, a);
    assert_true(is_held(*state, inode));
    inode_table_put(*state, inode);
    for (int i = 0; i < 200; i++) {
        look_up(*state, "b", &second, NODE_B);
        look_up(*state, "d/b", &first, NODE_B);
    }
    inode_table_tidy(*state, 10002);
    inode = inode_table_get(*state, a);
    assert_false(is_held(*state, inode));
    inode_table_put(*state, inode);
}

struct superseded {
    unsigned count;
    char name[16];
    uint64_t directory;
};

static int note_name(void *context, uint64_t directory, const char *name)
{
    struct superseded *superseded = context;
    superseded->count++;
    superseded->directory = directory;
    snprintf(superseded->name, sizeof superseded->name, "%s", name);
    return 0;
}

static unsigned superseded_by(struct inode_table *table, struct layout *layout,
                              struct superseded *out)
{
    struct unshard_place place = {.layout = &layout->checkpoint};
    *out = (struct superseded){0};
    assert_int_equal(inode_table_superseded(table, "", &place, note_name, out), 0);
    return out->count;
}

static void test_names_that_lead_elsewhere(void **state)
{
    struct superseded found;
    look_up(*state, "a", &first, NODE_A);
    look_up(*state, "b", &first, NODE_B);
    look_up(*state, "d/a", &first, NODE_A); /* it was seen in another directory last */
    assert_false(inode_table_is_news(*state, "", &first.checkpoint));
    assert_false(inode_table_is_news(*state, "", &first.checkpoint));
    assert_true(inode_table_is_news(*state, "", &second.checkpoint));
    assert_int_equal(superseded_by(*state, &second, &found), 0);
    uint64_t a = look_up(*state, "a", &first, NODE_A);
    assert_int_equal(superseded_by(*state, &first, &found), 0);
    assert_int_equal(superseded_by(*state, &second, &found), 1);
    assert_string_equal(found.name, "a");
    assert_int_equal(found.directory, INODE_ROOT);
    look_up(*state, "a", &second, NODE_A); /* the kernel knows what is there now */
    assert_int_equal(superseded_by(*state, &second, &found), 0);
    inode_table_forget(*state, a, 3);
}

static void test_forgotten_and_never_used_again(void **state)
{
    uint64_t nodes, bytes, id = look_up(*state, "a", &first, NODE_A);
    look_up(*state, "a", &first, NODE_A);
    inode_table_count(*state, &nodes, &bytes);
    assert_int_equal(nodes, 2);
    assert_int_equal(bytes, 100 * NODE_A);
    inode_table_forget(*state, id, 1);
    assert_true(exists(*state, id));
    inode_table_forget(*state, id, 5); /* more than there are */
    assert_false(exists(*state, id));
    inode_table_count(*state, &nodes, &bytes);
    assert_int_equal(nodes, 1);
    assert_int_equal(bytes, 0);
    assert_true(look_up(*state, "a", &first, NODE_A) > id);
    inode_table_forget(*state, id, 1); /* nonsense */
}

static void test_a_reference_keeps_it(void **state)
{
    struct inode *inode = seen(*state, "a", &first, NODE_A);
    uint64_t id = inode->id;
    inode_table_lookup(*state, inode);
    inode_table_forget(*state, id, 1);
    assert_true(exists(*state, id));
    inode_table_hold(*state, inode);
    inode_table_put(*state, inode);
    assert_true(exists(*state, id));
    inode_table_put(*state, inode);
    assert_false(exists(*state, id));
}

static void test_directories_and_links(void **state)
{
    uint64_t d = look_up(*state, "d", &first, NODE_D);
    assert_int_equal(look_up(*state, "d", &second, NODE_D), d);
    assert_int_not_equal(look_up(*state, "d/d", &second, NODE_D), d);
    uint64_t link = look_up(*state, "l", &first, NODE_L);
    second.nodes[NODE_L].target = "b";
    uint64_t other = look_up(*state, "l", &second, NODE_L);
    assert_int_not_equal(other, link);
    assert_true(exists(*state, link)); /* by its id, for who has it */
    assert_int_equal(look_up(*state, "l", &second, NODE_L), other);
    /* The directory's path is a link now, then a directory again. */
    uint64_t third = look_up(*state, "d", &second, NODE_L);
    assert_int_not_equal(third, d);
    assert_int_not_equal(look_up(*state, "d", &first, NODE_D), d);
    inode_table_forget(*state, link, 1);
    inode_table_forget(*state, d, 2);
    assert_false(exists(*state, d));
    assert_int_equal(inode_table_above(*state, "d/x"), 1000 + NODE_D);
    assert_int_equal(inode_table_above(*state, "x"), 1000);
    assert_int_equal(inode_table_above(*state, ""), 1000);
}

static void test_the_engine_knows_what_is_attached(void **state)
{
    uint64_t id = look_up(*state, "a", &first, NODE_A);
    assert_int_equal(engine.known_calls, 0);
    assert_int_equal(inode_table_view_nodeid(*state, 10), 0);
    attach_id(*state, id);
    attach_id(*state, id);
    assert_int_equal(engine.attached[10], 1);
    assert_int_equal(engine.known_calls, 1); /* at once: the kernel has it */
    assert_int_equal(inode_table_view_nodeid(*state, 10), id);
    assert_true(inode_table_view_known(*state, 10));
    inode_table_forget(*state, id, 1);
    assert_int_equal(engine.gone_calls, 1);
    assert_int_equal(engine.attached[10], 0);
    assert_int_equal(inode_table_view_nodeid(*state, 10), 0);
    assert_false(inode_table_view_known(*state, 10));
    assert_int_equal(inode_table_view_nodeid(*state, 4000000), 0);
}

static void test_attached_before_anybody_looked(void **state)
{
    struct inode *inode = seen(*state, "b", &first, NODE_B);
    assert_int_equal(inode_table_view(*state, inode), UNSHARD_NO_VIEW);
    assert_int_equal(inode_table_attach(*state, inode, NULL), 0);
    assert_int_equal(inode_table_view(*state, inode), 11);
    assert_int_equal(engine.known_calls, 0);
    uint64_t id = look_up(*state, "b", &first, NODE_B);
    assert_int_equal(id, inode->id);
    assert_int_equal(engine.known_calls, 1);
    inode_table_forget(*state, id, 1);
    assert_int_equal(engine.gone_calls, 1);
    assert_int_equal(engine.attached[11], 1); /* the reference keeps it so */
    assert_int_equal(look_up(*state, "b", &first, NODE_B), id);
    assert_int_equal(engine.known_calls, 2);
    inode_table_put(*state, inode);
    inode_table_forget(*state, id, 1);
    assert_int_equal(engine.attached[11], 0);
}

static void test_the_newest_layout_is_told_of(void **state)
{
    uint64_t id = look_up(*state, "b", &first, NODE_B);
    assert_int_equal(engine.told[0], 0);
    attach_id(*state, id);
    assert_int_equal(engine.told[0], 1);
    look_up(*state, "b", &first, NODE_B);
    assert_int_equal(engine.told[0], 1);
    look_up(*state, "b", &second, NODE_B);
    assert_int_equal(engine.told[0], 0);
    assert_int_equal(engine.told[1], 1);
    inode_table_forget(*state, id, 3);
    assert_int_equal(engine.told[1], 0);
}

static void test_a_reply_that_did_not_arrive(void **state)
{
    struct inode *inode = seen(*state, "a", &first, NODE_A);
    assert_int_equal(inode_table_attach(*state, inode, NULL), 0);
    inode_table_lookup(*state, inode);
    inode_table_forget(*state, inode->id, 1);
    inode_table_replied(*state, inode); /* late, and of no lookup */
    assert_int_equal(engine.known_calls, 0);
    inode_table_put(*state, inode);
    assert_int_equal(engine.attached[10], 0);
}

static void test_attaching_fails(void **state)
{
    struct unshard_error error;
    struct inode *inode = seen(*state, "a", &first, NODE_A);
    engine.fails = ENFILE;
    assert_int_equal(inode_table_attach(*state, inode, &error), -ENFILE);
    assert_int_equal(inode_table_view(*state, inode), UNSHARD_NO_VIEW);
    inode_table_put(*state, inode);
}

static int count_file(void *context, struct inode *inode)
{
    assert_int_equal(inode->kind, UNSHARD_NODE_FILE);
    return ++*(int *)context == 3 ? 77 : 0;
}

static void test_each_file(void **state)
{
    int count = 0;
    look_up(*state, "a", &first, NODE_A);
    look_up(*state, "b", &first, NODE_B);
    look_up(*state, "d", &first, NODE_D);
    assert_int_equal(inode_table_each_file(*state, count_file, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(inode_table_each_file(*state, count_file, &count), 77);
}

/* More than there are buckets at first. */
static void test_many(void **state)
{
    char path[32];
    enum { MANY = 5000 };
    static uint64_t ids[MANY];
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof path, "dir/%d", i);
        ids[i] = look_up(*state, path, &first, NODE_D);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(path, sizeof path, "dir/%d", i);
        assert_int_equal(look_up(*state, path, &first, NODE_D), ids[i]);
        inode_table_forget(*state, ids[i], 2);
        assert_false(exists(*state, ids[i]));
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_root),
        TEST(test_one_view_is_one_node),
        TEST(test_layouts_are_not_held_for_nothing),
        TEST(test_many_layouts_are_not_held_for_a_moment),
        TEST(test_names_that_lead_elsewhere),
        TEST(test_forgotten_and_never_used_again),
        TEST(test_a_reference_keeps_it),
        TEST(test_directories_and_links),
        TEST(test_the_engine_knows_what_is_attached),
        TEST(test_attached_before_anybody_looked),
        TEST(test_the_newest_layout_is_told_of),
        TEST(test_a_reply_that_did_not_arrive),
        TEST(test_attaching_fails),
        TEST(test_each_file),
        TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
