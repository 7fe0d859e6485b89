/* SPDX-License-Identifier: MIT
 *
 * The tree that lives: what is looked at, when again, and what has changed then. Its clock stands
 * still unless a test moves it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "live/live.h"
#include "support/corpus.h"
#include "support/tree_input.h"
#include "tree/trace.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define CORPUS "tests/corpus/tree"
#define HEADER "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"
#define HEADER_B "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}"
#define SET                                               \
    "s m/model-00001-of-00002.safetensors 4 " HEADER "\n" \
    "s m/model-00002-of-00002.safetensors 4 " HEADER_B "\n"
#define TRIES 5000

static char top[] = "/tmp/unshard-live-XXXXXX";
static atomic_uint_least64_t now_ns;
static struct unshard_tree *tree;
static char source[PATH_MAX];

static uint64_t test_clock(void)
{
    return atomic_load(&now_ns);
}

static void pass_a_second(void)
{
    atomic_fetch_add(&now_ns, LIVE_FRESH_NS);
}

/* Adds entries to the tree on disk, see tree_input.h. */
static void make(const char *text)
{
    char ignored[PATH_MAX];
    tree_make(top, (const uint8_t *)text, strlen(text), ignored);
}

static void open_with(const char *text, const struct unshard_view_options *options)
{
    struct unshard_error error = {0};
    tree_make(top, (const uint8_t *)text, strlen(text), source);
    assert_int_equal(unshard_tree_open(source, -1, options, &tree, &error), 0);
    tree->clock = test_clock;
}

static void open_tree(const char *text)
{
    open_with(text, NULL);
}

static const char *on_disk(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", top, name);
    return path;
}

static void append(const char *name, const char *text)
{
    FILE *file = fopen(on_disk(name), "ae");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void rename_on_disk(const char *from, const char *to)
{
    assert_int_equal(rename(on_disk(from), on_disk(to)), 0);
}

static struct unshard_place look(const char *path)
{
    struct unshard_place place = {0};
    struct unshard_error error = {0};
    if (unshard_tree_look(tree, path, &place, &error) != 0)
        fail_msg("\"%s\": %s", path, error.message);
    return place;
}

static int result_of(const char *path)
{
    struct unshard_place place = {0};
    struct unshard_error error = {0};
    int result = unshard_tree_look(tree, path, &place, &error);
    unshard_layout_release(place.layout);
    return result;
}

static int result_of_now(const char *path)
{
    struct unshard_place place = {0};
    int result = unshard_tree_look_now(tree, path, &place);
    unshard_layout_release(place.layout);
    return result;
}

/* The node of a name in a directory as it is now; its strings are of the layout. */
static struct unshard_node node_in(const char *path, const char *name, bool *found)
{
    struct unshard_place place = look(path);
    const struct unshard_node *node = unshard_node_child(place.layout, place.node, name);
    struct unshard_node copy = node != NULL ? *node : (struct unshard_node){0};
    *found = node != NULL;
    unshard_layout_release(place.layout);
    return copy;
}

static bool has(const char *path, const char *name)
{
    bool found;
    node_in(path, name, &found);
    return found;
}

static uint64_t size_of(const char *path, const char *name)
{
    bool found;
    struct unshard_node node = node_in(path, name, &found);
    assert_true(found);
    return node.size;
}

/* Looks until a directory's layout stays: as long as its files are that young it is laid out anew.
 * Not held. */
static const struct unshard_checkpoint *settled(const char *path)
{
    const struct unshard_checkpoint *before = NULL;
    for (int i = 0; i < TRIES; i++) {
        static const struct timespec moment = {.tv_nsec = 1000000};
        struct unshard_place place = look(path);
        const struct unshard_checkpoint *layout = place.layout;
        bool young = layout->trace->young;
        unshard_layout_release(place.layout);
        if (layout == before && !young)
            return layout;
        before = layout;
        pass_a_second();
        nanosleep(&moment, NULL);
    }
    fail_msg("\"%s\" is laid out anew again and again", path);
    return NULL;
}

static bool stays(const char *path, const struct unshard_checkpoint *layout)
{
    struct unshard_place place = look(path);
    bool same = place.layout == layout;
    unshard_layout_release(place.layout);
    return same;
}

/* ---- looking -----------------------------------------------------------------------------------
 */

static void test_nothing_is_looked_at_before_it_is_asked_for(void **state)
{
    (void)state;
    open_tree(SET "d other\n");
    assert_int_equal(tree->directories.count, 0);
    const struct unshard_checkpoint *root = unshard_tree_root(tree);
    assert_int_equal(unshard_node_count(root), 0);
    assert_int_equal(unshard_view_count(root), 0);
    assert_string_equal(unshard_checkpoint_source(root), source);
    assert_int_equal(result_of_now(""), -EAGAIN);
    assert_int_equal(result_of_now("m"), -EAGAIN);
    assert_int_equal(tree->directories.count, 0);
    assert_true(has("", "m"));
    assert_int_equal(result_of_now(""), 0);
    assert_int_equal(result_of_now("m"), -EAGAIN);
    assert_int_equal(tree->directories.count, 1);
}

static void test_a_directory_is_what_it_is_in_the_whole(void **state)
{
    (void)state;
    open_tree(SET "f m/config.json {}\nd m/sub\n");
    struct unshard_place place = look("m");
    assert_int_equal(place.node, 0);
    assert_int_equal(unshard_component_count(place.layout), 1);
    assert_non_null(unshard_node_child(place.layout, 0, "model.safetensors"));
    assert_non_null(unshard_node_child(place.layout, 0, "config.json"));
    const struct unshard_node *sub = unshard_node_child(place.layout, 0, "sub");
    assert_true(sub->kind == UNSHARD_NODE_DIRECTORY && !sub->made && sub->child_count == 0);
    assert_true(unshard_node_child(place.layout, 0, "model-00001-of-00002.safetensors")->unlisted);
    unshard_layout_release(place.layout);
}

static void test_what_is_no_directory(void **state)
{
    (void)state;
    open_tree(SET "f m/config.json {}\nl away /etc\nd .unshard/x\n");
    assert_int_equal(result_of("none"), -ENOENT);
    assert_int_equal(result_of("m/none/deep"), -ENOENT);
    assert_int_equal(result_of("m/config.json"), -ENOTDIR);
    assert_int_equal(result_of("m/config.json/deep"), -ENOTDIR);
    assert_int_equal(result_of("away"), -ENOENT);
    assert_int_equal(result_of(".unshard"), -ENOENT);
    assert_int_equal(result_of("m/.."), -ENOENT);
    assert_int_equal(result_of("m/."), -ENOENT);
    assert_int_equal(result_of_now("none"), -ENOENT);
    assert_int_equal(result_of_now("m/config.json"), -ENOTDIR);
    char path[PATH_MAX + 8];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(result_of(path), -ENAMETOOLONG);
}

static void test_within_a_second_there_is_no_other_look(void **state)
{
    (void)state;
    open_tree(SET);
    assert_false(has("m", "new"));
    make("f m/new x\n");
    atomic_fetch_add(&now_ns, LIVE_FRESH_NS - 1);
    assert_false(has("m", "new"));
    assert_int_equal(result_of_now("m"), 0);
    atomic_fetch_add(&now_ns, 1);
    assert_int_equal(result_of_now("m"), -EAGAIN);
    assert_true(has("m", "new"));
    assert_int_equal(result_of_now("m"), 0);
}

static void test_what_has_not_changed_stays(void **state)
{
    (void)state;
    open_tree(SET "f m/notes.txt x\nf m/SHA256SUMS x\nd m/sub\n");
    const struct unshard_checkpoint *layout = settled("m"), *root = settled("");
    for (int i = 0; i < 3; i++) {
        pass_a_second();
        assert_true(stays("", root));
        assert_true(stays("m", layout));
    }
}

/* ---- who may list ------------------------------------------------------------------------------
 */

static void set_mode(const char *name, mode_t mode)
{
    assert_int_equal(chmod(on_disk(name), mode), 0);
}

static void see(const char *path)
{
    struct unshard_place place = look(path);
    unshard_layout_release(place.layout);
}

/* The directories of a tree are those of who runs this: all that differs is who asks. */
static const gid_t in_group[1] = {0};
static struct unshard_user owner, member, fellow, stranger, unclear;

static void make_users(void)
{
    static gid_t groups[2];
    const gid_t none = getegid() + 1;
    groups[0] = none;
    groups[1] = getegid();
    owner = (struct unshard_user){geteuid(), none, in_group, 0, true};
    member = (struct unshard_user){geteuid() + 1, getegid(), in_group, 0, true};
    fellow = (struct unshard_user){geteuid() + 1, none, groups, 2, true};
    stranger = (struct unshard_user){geteuid() + 1, none, groups, 1, true};
    unclear = (struct unshard_user){geteuid() + 1, none, NULL, 0, false};
}

static bool may_list(const char *path, const struct unshard_user *user)
{
    return unshard_tree_may_list(tree, path, user);
}

static void test_who_may_list_a_directory(void **state)
{
    (void)state;
    open_tree(SET "d m/sub\n");
    make_users();
    set_mode("", 0755);
    assert_false(may_list("", &stranger)); /* nobody has looked */
    set_mode("m", 0700);
    see("m/sub");
    assert_true(may_list("", &stranger) && may_list("", &owner));
    assert_true(may_list("m", &owner) && may_list("m/sub", &owner));
    assert_false(may_list("m", &member) || may_list("m/sub", &member) || may_list("m", &stranger));
    const struct {
        mode_t mode;
        bool owner, member, stranger, unclear;
    } cases[] = {{0750, true, true, false, false},  {0705, true, false, true, false},
                 {0755, true, true, true, true},    {0744, true, false, false, false},
                 {0711, true, false, false, false}, {0055, false, true, true, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_mode("m", cases[i].mode);
        pass_a_second();
        see("");
        assert_int_equal(may_list("m", &owner), cases[i].owner);
        assert_int_equal(may_list("m", &member), cases[i].member);
        assert_int_equal(may_list("m", &fellow), cases[i].member);
        assert_int_equal(may_list("m", &stranger), cases[i].stranger);
        assert_int_equal(may_list("m", &unclear), cases[i].unclear);
        assert_int_equal(may_list("m/sub", &stranger), cases[i].stranger);
    }
}

static void test_who_may_list_all_on_the_way(void **state)
{
    (void)state;
    open_tree("d a/b/c\nf a/file x\n");
    make_users();
    set_mode("", 0755);
    see("a/b/c");
    assert_true(may_list("a/b/c", &stranger));
    assert_false(may_list("a/b/none", &stranger) || may_list("a/file", &stranger));
    assert_false(may_list("a/file/none", &stranger) || may_list("none", &stranger));
    char path[PATH_MAX + 8];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_false(may_list(path, &stranger));
    set_mode("a", 0711);
    pass_a_second();
    see("");
    assert_false(may_list("a", &stranger) || may_list("a/b", &stranger));
    assert_false(may_list("a/b/c", &stranger));
    assert_true(may_list("a/b/c", &owner));
    set_mode("a", 0755);
    set_mode("", 0700);
    pass_a_second();
    see("a/b");
    assert_false(may_list("", &stranger) || may_list("a/b/c", &stranger));
}

/* The directory itself tells, and the one above it: who was looked at last is right. */
static void test_the_later_look_says_who_may_list(void **state)
{
    (void)state;
    open_tree("d a/b\n");
    make_users();
    set_mode("", 0755);
    see("a/b");
    set_mode("a", 0700);
    assert_true(may_list("a/b", &stranger)); /* as was seen last */
    pass_a_second();
    see("");
    assert_false(may_list("a/b", &stranger));
    set_mode("a", 0755);
    pass_a_second();
    assert_false(may_list("a", &stranger));
    see("");
    assert_true(may_list("a/b", &stranger));
    atomic_fetch_add(&now_ns, LIVE_FRESH_NS / 2);
    see("a");
    set_mode("a", 0700);
    atomic_fetch_add(&now_ns, LIVE_FRESH_NS / 2);
    see(""); /* later than "a" */
    assert_false(may_list("a", &stranger));
    set_mode("a", 0755);
    atomic_fetch_add(&now_ns, LIVE_FRESH_NS * 3 / 4);
    see("a"); /* later than the source, which is still fresh */
    assert_true(may_list("a", &stranger));
    rename_on_disk("a", "other");
    pass_a_second();
    see("");
    assert_false(may_list("a", &stranger) || may_list("a/b", &stranger));
    assert_true(may_list("other", &stranger));    /* what is above it shows it */
    assert_false(may_list("other/b", &stranger)); /* nobody has looked */
}

static void test_directories_of_our_making_are_listed_as_theirs(void **state)
{
    (void)state;
    open_with("s m/pipeline.safetensors 8 "
              "{\"vae.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
              "\"unet.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}\n",
              &(struct unshard_view_options){.split = "vae.,unet."});
    make_users();
    set_mode("", 0755);
    bool found;
    assert_true(node_in("m", "vae", &found).made && found);
    assert_true(may_list("m/vae", &stranger));
    set_mode("m", 0700);
    pass_a_second();
    see("m");
    assert_false(may_list("m/vae", &stranger));
    assert_true(may_list("m/vae", &owner));
}

/* ---- following ---------------------------------------------------------------------------------
 */

static void test_a_shard_that_arrives_completes_its_set(void **state)
{
    (void)state;
    open_tree("s m/model-00001-of-00002.safetensors 4 " HEADER "\n");
    struct unshard_place place = look("m");
    assert_non_null(unshard_component(place.layout, 0).error);
    make("s m/model-00002-of-00002.safetensors 4 " HEADER_B "\n");
    pass_a_second();
    struct unshard_place later = look("m");
    assert_int_equal(unshard_component_count(later.layout), 1);
    assert_null(unshard_component(later.layout, 0).error);
    assert_int_equal(unshard_component(later.layout, 0).tensor_count, 2);
    /* Whoever holds the old one has it as it was. */
    assert_non_null(unshard_component(place.layout, 0).error);
    unshard_layout_release(place.layout);
    unshard_layout_release(later.layout);
}

static void test_another_content_is_another_layout(void **state)
{
    (void)state;
    open_tree("s m/model.safetensors 4 " HEADER "\nf m/SHA256SUMS x\n");
    const struct unshard_checkpoint *layout = settled("m");
    make("s new 4 " HEADER_B "\n");
    rename_on_disk("new", "m/model.safetensors");
    pass_a_second();
    assert_false(stays("m", layout));
    layout = settled("m");
    append("m/SHA256SUMS", "y\n");
    pass_a_second();
    assert_false(stays("m", layout));
    layout = settled("m");
    assert_int_equal(chmod(on_disk("m/model.safetensors"), 0400), 0);
    pass_a_second();
    assert_false(stays("m", layout));
}

static void test_the_same_size_and_time_do_not_deceive(void **state)
{
    (void)state;
    open_tree("s m/model.safetensors 4 " HEADER "\n");
    for (int i = 0; i < 50; i++) {
        const char *name = i % 2 == 0 ? "b" : "a";
        struct unshard_place place = look("m");
        unshard_layout_release(place.layout);
        int fd = open(on_disk("m/model.safetensors"), O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, name, 1, 10), 1); /* the tensor's name */
        close(fd);
        pass_a_second();
        place = look("m");
        assert_memory_equal(place.layout->views[0].map.literal_size > 0
                                ? place.layout->views[0].map.literal + 10
                                : name,
                            name, 1);
        XXH128_hash_t layout = place.layout->files[0].layout;
        unshard_layout_release(place.layout);
        static XXH128_hash_t known[2];
        if (i < 2)
            known[i] = layout;
        assert_true(XXH128_isEqual(layout, known[i % 2]));
        assert_false(XXH128_isEqual(known[0], known[1]) && i > 0);
    }
}

static void test_attributes_cost_no_layout(void **state)
{
    (void)state;
    open_tree(SET "f m/train.log one\nd m/sub\nf m/empty\n");
    const struct unshard_checkpoint *origin = settled("m");
    assert_int_equal(size_of("m", "train.log"), 3);
    for (int i = 0; i < 3; i++) {
        append("m/train.log", "two");
        pass_a_second();
        struct unshard_place place = look("m");
        assert_true(place.layout->origin == origin);
        const struct unshard_node *node = unshard_node_child(place.layout, 0, "train.log");
        assert_int_equal(node->size, 6 + 3 * i);
        const struct view *view = &place.layout->views[node->view];
        assert_int_equal(view->size, node->size);
        assert_int_equal(view->map.size, node->size);
        assert_int_equal(place.layout->files[view->map.extents[0].source].size, node->size);
        assert_int_equal(unshard_component(place.layout, 0).tensor_count, 2);
        unshard_layout_release(place.layout);
        pass_a_second();
        assert_int_equal(size_of("m", "train.log"), 6 + 3 * i);
    }
    append("m/empty", "x");
    assert_int_equal(chmod(on_disk("m/train.log"), 0640), 0);
    assert_int_equal(chmod(on_disk("m/sub"), 0700), 0);
    pass_a_second();
    struct unshard_place place = look("m");
    assert_true(place.layout->origin == origin);
    assert_int_equal(unshard_node_child(place.layout, 0, "empty")->size, 1);
    assert_int_equal(unshard_node_child(place.layout, 0, "train.log")->mode & 0777, 0440);
    assert_int_equal(unshard_node_child(place.layout, 0, "sub")->mode & 0777, 0500);
    assert_int_equal(truncate(on_disk("m/empty"), 0), 0);
    pass_a_second();
    assert_int_equal(size_of("m", "empty"), 0);
    unshard_layout_release(place.layout);
    /* A file that is another one now. */
    make("f new another\n");
    rename_on_disk("new", "m/train.log");
    pass_a_second();
    place = look("m");
    assert_true(place.layout->origin == origin);
    assert_int_equal(unshard_node_child(place.layout, 0, "train.log")->size, 7);
    unshard_layout_release(place.layout);
}

static void identity_of(const char *path, const char *name, unsigned char out[16])
{
    struct unshard_place place = look(path);
    const struct unshard_node *node = unshard_node_child(place.layout, 0, name);
    assert_non_null(node);
    unshard_view_identity(place.layout, node->view, out);
    unshard_layout_release(place.layout);
}

/* What a layout holds besides its arena is let go of once. */
static void test_a_copy_holds_what_its_origin_does(void **state)
{
    (void)state;
    open_tree(SET "f m/train.log one\n"
                  "f m/unshard-manifest.json {\"version\":1,\"chunk_bytes\":65536,\"files\":[]}\n");
    const struct unshard_checkpoint *origin = settled("m");
    assert_int_equal(origin->inherited.parsed_count, 1);
    append("m/train.log", "two");
    pass_a_second();
    struct unshard_place place = look("m");
    assert_true(place.layout->origin == origin);
    append("m/train.log", "two");
    pass_a_second();
    assert_int_equal(size_of("m", "train.log"), 9);
    assert_int_equal(place.layout->inherited.parsed_count, 1);
    unshard_layout_release(place.layout);
    assert_int_equal(rename(on_disk("m"), on_disk("n")), 0);
    pass_a_second();
    assert_int_equal(result_of("m"), -ENOENT);
    assert_int_equal(result_of("n"), 0);
}

/* Also where the layout is but a copy. */
static void test_what_is_another_file_is_another_view(void **state)
{
    unsigned char merged[16], log[16], now[16];
    (void)state;
    open_tree(SET "f m/train.log one\n");
    settled("m");
    identity_of("m", "model.safetensors", merged);
    identity_of("m", "train.log", log);
    append("m/train.log", "two");
    pass_a_second();
    identity_of("m", "train.log", now);
    assert_memory_not_equal(now, log, 16);
    identity_of("m", "model.safetensors", now);
    assert_memory_equal(now, merged, 16);
    struct unshard_place place = look("m");
    assert_non_null(place.layout->origin);
    unshard_layout_release(place.layout);
}

static void test_directories_come_go_and_are_renamed(void **state)
{
    (void)state;
    open_tree(SET "s m/sub/model.safetensors 4 " HEADER "\n");
    assert_true(has("m/sub", "model.safetensors"));
    assert_int_equal(tree->directories.count, 3);
    rename_on_disk("m", "n");
    pass_a_second();
    assert_int_equal(result_of("m"), -ENOENT);
    assert_int_equal(result_of("m/sub"), -ENOENT);
    assert_int_equal(tree->directories.count, 1);
    assert_true(has("n/sub", "model.safetensors"));
    make("d m/sub\n");
    pass_a_second();
    assert_false(has("m/sub", "model.safetensors"));
    assert_int_equal(rmdir(on_disk("m/sub")), 0);
    pass_a_second();
    assert_int_equal(result_of("m/sub"), -ENOENT);
    make("f m/sub x\n");
    pass_a_second();
    assert_int_equal(result_of("m/sub"), -ENOTDIR);
}

static void test_who_finds_nothing_makes_the_parent_look(void **state)
{
    (void)state;
    open_tree("f m/a x\nd m/sub\n");
    assert_true(has("m", "sub"));
    assert_int_equal(rmdir(on_disk("m/sub")), 0);
    assert_int_equal(result_of("m/sub"), -ENOENT);
    assert_false(has("m", "sub"));
}

static void test_the_source_is_followed(void **state)
{
    (void)state;
    open_tree(". now\ns now/model.safetensors 4 " HEADER "\nf then/other x\n");
    assert_true(has("", "model.safetensors"));
    rename_on_disk("now", "was");
    rename_on_disk("then", "now");
    pass_a_second();
    assert_true(has("", "other"));
    assert_false(has("", "model.safetensors"));
    rename_on_disk("now", "then");
    pass_a_second();
    assert_true(has("", "other")); /* there is nothing to follow: it is what it was */
}

static void test_what_lies_elsewhere_counts(void **state)
{
    (void)state;
    open_tree("s m/sub/model.safetensors 4 " HEADER "\n"
              "f index {\"a\":[\"x\",\"y\"],\"sub\":[\"x\",\"y\"]}\n"
              "f list 4444444444444444444444444444444444444444444444444444444444444444"
              "  sub/model.safetensors\n");
    struct unshard_place place = look("m/sub");
    assert_null(place.layout->files[0].expectation);
    unsigned order = place.layout->components[0].load_order;
    unshard_layout_release(place.layout);
    settled("m/sub");
    rename_on_disk("list", "m/SHA256SUMS"); /* above it */
    pass_a_second();
    place = look("m/sub");
    assert_non_null(place.layout->files[0].expectation);
    unshard_layout_release(place.layout);
    settled("m/sub");
    rename_on_disk("index", "m/model_index.json"); /* beside it */
    pass_a_second();
    place = look("m/sub");
    assert_int_equal(place.layout->components[0].load_order, 1);
    assert_int_not_equal(order, 1);
    unshard_layout_release(place.layout);
    settled("m/sub");
    assert_int_equal(unlink(on_disk("m/SHA256SUMS")), 0);
    pass_a_second();
    place = look("m/sub");
    assert_null(place.layout->files[0].expectation);
    unshard_layout_release(place.layout);
    settled("m/sub");
    make("f m/.cache/huggingface/download/sub/model.safetensors.metadata "
         "0123456789abcdef0123456789abcdef01234567\n");
    append("m/.cache/huggingface/download/sub/model.safetensors.metadata",
           "\n4444444444444444444444444444444444444444444444444444444444444444\n8999999999.0\n");
    pass_a_second();
    place = look("m/sub");
    assert_non_null(place.layout->files[0].expectation);
    unshard_layout_release(place.layout);
}

static void test_an_index_takes_files_of_directories_below(void **state)
{
    (void)state;
    open_tree("s m/part/one.safetensors 4 " HEADER "\n"
              "s m/part/two.safetensors 4 " HEADER_B "\n"
              "f index {\"weight_map\":{\"a\":\"part/one.safetensors\","
              "\"b\":\"part/two.safetensors\"}}\n");
    bool found;
    assert_false(node_in("m/part", "one.safetensors", &found).unlisted);
    rename_on_disk("index", "m/model.safetensors.index.json");
    pass_a_second();
    assert_true(has("m", "model.safetensors"));
    struct unshard_place place = look("m/part");
    const struct unshard_node *one = unshard_node_child(place.layout, 0, "one.safetensors");
    assert_int_equal(place.layout->component_count, 0);
    assert_true(one == NULL || place.layout->views[one->view].component == NO_COMPONENT);
    unshard_layout_release(place.layout);
    settled("m");
    assert_int_equal(unlink(on_disk("m/part/two.safetensors")), 0);
    pass_a_second();
    place = look("m");
    assert_non_null(unshard_component(place.layout, 0).error);
    unshard_layout_release(place.layout);
}

/* ---- bounds ------------------------------------------------------------------------------------
 */

static void test_links_have_an_end(void **state)
{
    (void)state;
    open_tree("l a .\nl b/c ../d\nl d/e ../b\nf b/x x\n");
    assert_int_equal(result_of("a"), -ENOENT); /* the directory that it is in */
    assert_int_equal(result_of("b/c"), 0);
    assert_int_equal(result_of("b/c/e"), -ENOENT);
    make("d 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17\n");
    pass_a_second();
    assert_int_equal(result_of("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"), 0);
    assert_int_equal(result_of("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"), -ENOENT);
}

static size_t listed;

static int count_listed(void *context, const char *path, struct unshard_checkpoint *layout)
{
    (void)context, (void)layout;
    listed++;
    return strlen(path) < PATH_MAX ? 0 : -1;
}

static void test_a_walk_through_links_ends(void **state)
{
    (void)state;
    open_tree("l x/a ../y\nl x/b ../y\nl y/a ../z\nl y/b ../z\nl z/a ../w\nl z/b ../w\nl w/a ../v\n"
              "d v\n");
    listed = 0;
    assert_int_equal(unshard_tree_walk(tree, count_listed, NULL), 0);
    assert_true(listed > 6 && listed < 100);
}

static void test_what_nobody_asks_for_is_forgotten(void **state)
{
    char name[32];
    (void)state;
    open_tree(SET);
    tree->most = 10;
    struct unshard_place held = look("m");
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "d d%d\n", i);
        make(name);
    }
    pass_a_second();
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "d%d", i);
        assert_int_equal(result_of(name), 0);
        assert_true(tree->directories.count <= 13);
    }
    assert_non_null(directories_find(&tree->directories, "m")); /* somebody holds it */
    assert_null(directories_find(&tree->directories, "d0"));
    assert_true(stays("m", held.layout) || held.layout->trace->young);
    unshard_layout_release(held.layout);
    tree->most_bytes = 1;
    tree->most = 1000;
    assert_int_equal(result_of("d0"), 0);
    assert_true(tree->directories.count <= 8); /* the last few stay, however large they are */
    assert_true(stays("d0", settled("d0")));
}

static void test_many_models_take_little(void **state)
{
    (void)state;
    open_tree("");
    char name[96];
    for (int i = 0; i < 20; i++) {
        pass_a_second();
        for (int k = 1; k <= 50; k++) {
            snprintf(name, sizeof name,
                     "{\"t%d\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", k);
            char line[256];
            snprintf(line, sizeof line, "s m%d/model-%05d-of-00050.safetensors 4 %s\n", i, k, name);
            make(line);
        }
        snprintf(name, sizeof name, "m%d", i);
        assert_int_equal(result_of(name), 0);
    }
    assert_true(tree->directories.bytes / 20 < 64 << 10);
}

/* ---- failing -----------------------------------------------------------------------------------
 */

static void test_a_failing_directory_is_its_own_matter(void **state)
{
    (void)state;
    open_tree(SET "d closed/below\n");
    assert_int_equal(chmod(top, 0755), 0);
    assert_int_equal(chmod(on_disk("closed"), 0), 0);
    if (getuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    int result = result_of("closed"), below = result_of("closed/below"), other = result_of("m");
    int now = result_of_now("closed");
    assert_int_equal(seteuid(getuid()), 0);
    assert_int_equal(chmod(on_disk("closed"), 0755), 0);
    assert_int_equal(result, -EACCES);
    assert_int_equal(below, -EACCES);
    assert_int_equal(now, -EACCES);
    assert_int_equal(other, 0);
    pass_a_second();
    assert_int_equal(result_of("closed/below"), 0);
}

/* ---- several at once ---------------------------------------------------------------------------
 */

#define LOOKERS 8

static atomic_uint wrong;
static pthread_barrier_t barrier;
static struct unshard_checkpoint *seen[LOOKERS];

static void *look_once(void *argument)
{
    struct unshard_place place = {0};
    pthread_barrier_wait(&barrier);
    if (unshard_tree_look(tree, "m", &place, NULL) != 0)
        atomic_fetch_add(&wrong, 1);
    *(struct unshard_checkpoint **)argument = place.layout;
    return NULL;
}

static void test_several_lookers_are_served_by_one_look(void **state)
{
    (void)state;
    open_tree(SET);
    pthread_t threads[LOOKERS];
    atomic_store(&wrong, 0);
    pthread_barrier_init(&barrier, NULL, LOOKERS);
    for (int i = 0; i < LOOKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_once, &seen[i]), 0);
    for (int i = 0; i < LOOKERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    assert_int_equal(atomic_load(&wrong), 0);
    for (int i = 0; i < LOOKERS; i++) {
        assert_true(seen[i] == seen[0]);
        unshard_layout_release(seen[i]);
    }
}

/* While somebody looks, a layout that was fresh a moment ago is had at once; an older one not. */
static void test_nobody_waits_for_what_was_just_fresh(void **state)
{
    (void)state;
    open_tree(SET);
    assert_int_equal(result_of("m"), 0);
    struct directory *directory = directories_find(&tree->directories, "m");
    directory->looking = true;
    assert_int_equal(result_of_now("m"), 0);
    pass_a_second();
    assert_int_equal(result_of(""), 0);
    assert_int_equal(result_of_now("m"), 0);
    assert_int_equal(result_of("m"), 0);
    pass_a_second();
    assert_int_equal(result_of(""), 0);
    assert_int_equal(result_of_now("m"), -EAGAIN);
    directory->looking = false;
    assert_int_equal(result_of("m"), 0);
}

static uint64_t slow_clock(void)
{
    return atomic_fetch_add(&now_ns, LIVE_FRESH_NS);
}

static void test_slow_looks_count_longer(void **state)
{
    (void)state;
    open_tree(SET);
    tree->clock = slow_clock; /* a look takes a second, and so does the call that asks for it */
    assert_int_equal(result_of(""), 0);
    tree->clock = test_clock;
    assert_int_equal(directories_find(&tree->directories, "")->fresh_ns, 4 * LIVE_FRESH_NS);
}

/* ---- looks that hang ---------------------------------------------------------------------------
 */

static struct directory *begin_look(const char *path)
{
    pthread_mutex_lock(&tree->lock);
    struct directory *directory = directories_get(&tree->directories, path);
    assert_non_null(directory);
    live_look_begins(tree, directory);
    pthread_mutex_unlock(&tree->lock);
    return directory;
}

static void end_look(struct directory *directory)
{
    pthread_mutex_lock(&tree->lock);
    live_look_ends(tree, directory);
    pthread_mutex_unlock(&tree->lock);
}

static void pass_ms(uint64_t milliseconds)
{
    atomic_fetch_add(&now_ns, milliseconds * 1000000);
}

/* The directories that are told, in a row: "a b". */
static void assert_told(const char *expected, unsigned stalled, double oldest)
{
    struct unshard_looks looks;
    char told[1024] = "";
    unshard_tree_looks(tree, &looks);
    for (uint32_t i = 0; i < looks.stuck_count; i++)
        snprintf(told + strlen(told), sizeof told - strlen(told), "%s%s", i > 0 ? " " : "",
                 looks.stuck[i].directory);
    free(looks.stuck);
    assert_string_equal(told, expected);
    assert_int_equal(looks.stalled, stalled);
    assert_true(looks.oldest_seconds == oldest);
}

static void test_looks_that_hang_are_told(void **state)
{
    (void)state;
    open_tree(SET);
    assert_int_equal(result_of("m"), 0);
    assert_told("", 0, 0);
    struct directory *m = begin_look("m");
    pass_ms(1500);
    struct directory *top_directory = begin_look("");
    assert_told("", 0, 1.5);
    pass_ms(1000);
    struct directory *below = begin_look("m/below");
    assert_told("m", 1, 2.5);
    pass_ms(2500);
    assert_told("m . m/below", 3, 5);
    struct unshard_looks looks;
    unshard_tree_looks(tree, &looks);
    assert_true(looks.stuck[1].seconds == 3.5);
    free(looks.stuck);
    end_look(top_directory);
    assert_told("m m/below", 2, 5);
    end_look(below);
    struct directory *last = begin_look("last");
    end_look(m);
    assert_told("", 0, 0);
    end_look(last);
    assert_int_equal(result_of("m"), 0); /* as if nothing had been */
    assert_told("", 0, 0);
}

static void test_a_look_that_is_always_slow_does_not_hang(void **state)
{
    (void)state;
    open_tree(SET);
    struct directory *slow = begin_look("m");
    slow->fresh_ns = 6 * LIVE_FRESH_NS; /* the last one took 1.5 s */
    pass_ms(5900);
    assert_told("", 0, 5.9);
    pass_ms(200);
    assert_told("m", 1, 6.1);
    slow->fresh_ns = 400 * LIVE_FRESH_NS; /* it hung */
    assert_told("", 0, 6.1);
    pass_ms(4000);
    assert_told("m", 1, 10.1);
    end_look(slow);
}

static void test_what_is_told_of_looks_has_a_bound(void **state)
{
    (void)state;
    struct directory *directories[20];
    open_tree(SET);
    for (unsigned i = 0; i < 20; i++) {
        char name[8];
        snprintf(name, sizeof name, "%u", i);
        directories[i] = begin_look(name);
    }
    pass_ms(3000);
    assert_told("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", 20, 3);
    for (unsigned i = 0; i < 20; i += 2)
        end_look(directories[i]);
    assert_told("1 3 5 7 9 11 13 15 17 19", 10, 3);
    for (unsigned i = 1; i < 20; i += 2)
        end_look(directories[i]);
}

struct change {
    atomic_bool end;
};

static void *look_again_and_again(void *argument)
{
    struct change *change = argument;
    while (!atomic_load(&change->end)) {
        struct unshard_place place = {0};
        if (unshard_tree_look(tree, "m", &place, NULL) != 0) {
            atomic_fetch_add(&wrong, 1);
            continue;
        }
        uint32_t components = unshard_component_count(place.layout);
        const struct unshard_node *log = unshard_node_child(place.layout, 0, "log");
        if (components != 1 || log == NULL || place.layout->views[log->view].size != log->size)
            atomic_fetch_add(&wrong, 1);
        unshard_layout_release(place.layout);
        if (unshard_tree_look_now(tree, "m", &place) == 0)
            unshard_layout_release(place.layout);
    }
    return NULL;
}

/* Whether a directory comes to have a name, or not to have it, and a log of that size. How long
 * what the others have found counts depends on how the clock went meanwhile. */
static bool comes_to(bool other, uint64_t log)
{
    for (int i = 0; i < TRIES; i++) {
        pass_a_second();
        if (has("m", "other") == other && size_of("m", "log") == log)
            return true;
    }
    return false;
}

static void test_lookers_while_it_changes(void **state)
{
    (void)state;
    open_tree(SET "f m/log x\n");
    struct change change = {0};
    pthread_t threads[4];
    atomic_store(&wrong, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_again_and_again, &change), 0);
    unsigned missed = 0;
    for (int i = 0; i < 100; i++) {
        append("m/log", "x");
        make("f m/other x\n");
        missed += !comes_to(true, (uint64_t)i + 2);
        unlink(on_disk("m/other"));
        missed += !comes_to(false, (uint64_t)i + 2);
    }
    atomic_store(&change.end, true);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(missed, 0);
    assert_int_equal(atomic_load(&wrong), 0);
}

/* ---- walks -------------------------------------------------------------------------------------
 */

struct told {
    char text[1 << 16];
    bool components;
};

static int tell(void *context, const char *path, struct unshard_checkpoint *layout)
{
    struct told *told = context;
    size_t length = strlen(told->text);
    for (uint32_t i = 0; told->components && i < unshard_component_count(layout); i++) {
        snprintf(told->text + length, sizeof told->text - length, "%s\n",
                 unshard_component(layout, i).name);
        length = strlen(told->text);
    }
    if (!told->components)
        snprintf(told->text + length, sizeof told->text - length, "%s\n", path);
    return 0;
}

static void check_walk(const char *name)
{
    char path[512], text[TREE_MAX_TEXT + 1];
    struct unshard_view_options options = {.split = "auto"};
    struct unshard_checkpoint *whole = NULL;
    struct unshard_error error = {0};
    snprintf(path, sizeof path, "%s/%s", CORPUS, name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    open_with(text, &options);
    assert_int_equal(unshard_checkpoint_open(source, &options, &whole, &error), 0);
    struct told *told = calloc(1, sizeof *told), *expected = calloc(1, sizeof *expected);
    told->components = expected->components = true;
    tell(expected, "", whole);
    assert_int_equal(unshard_tree_walk(tree, tell, told), 0);
    if (strcmp(told->text, expected->text) != 0)
        fail_msg("%s: components are\n%sand not\n%s", name, told->text, expected->text);
    free(told);
    free(expected);
    unshard_checkpoint_close(whole);
    unshard_tree_close(tree);
    tree = NULL;
    tree_clear(top);
}

static void test_a_walk_finds_the_components_of_the_whole(void **state)
{
    (void)state;
    corpus_each(CORPUS, 40, check_walk);
}

static int stop_at_second(void *context, const char *path, struct unshard_checkpoint *layout)
{
    (void)path, (void)layout;
    return ++*(int *)context == 2 ? 42 : 0;
}

static void test_a_walk_ends_when_told_to(void **state)
{
    int count = 0;
    (void)state;
    open_tree("d a\nd b\nd c\n");
    assert_int_equal(unshard_tree_walk(tree, stop_at_second, &count), 42);
    assert_int_equal(count, 2);
}

static void test_a_pipeline_in_load_order(void **state)
{
    struct told told = {0};
    (void)state;
    open_tree("f p/model_index.json {\"_class_name\":\"X\",\"d\":[\"x\",\"y\"],\"b\":[\"x\",\"y\"],"
              "\"none\":[\"x\",\"y\"],\"c\":[\"x\",\"y\"],\"a\":[\"x\",\"y\"]}\n"
              "d p/a\nd p/b\nd p/c\nd p/d\nd p/other\n");
    assert_int_equal(unshard_tree_pipeline(tree, "p/b", tell, &told), 0);
    assert_string_equal(told.text, "p/c\np/a\np/d\n");
    told.text[0] = '\0';
    assert_int_equal(unshard_tree_pipeline(tree, "p/other", tell, &told), 0);
    assert_int_equal(unshard_tree_pipeline(tree, "p", tell, &told), 0);
    assert_int_equal(unshard_tree_pipeline(tree, "", tell, &told), 0);
    assert_string_equal(told.text, "");
    int count = 0;
    assert_int_equal(unshard_tree_pipeline(tree, "p/a", stop_at_second, &count), 42);
}

static bool is_one_model(const char *text)
{
    open_tree(text);
    bool is_one = unshard_tree_is_one_model(tree);
    unshard_tree_close(tree);
    tree = NULL;
    tree_clear(top);
    return is_one;
}

static void test_what_is_one_model(void **state)
{
    (void)state;
    assert_true(is_one_model("s model.safetensors 4 " HEADER "\n"));
    assert_true(is_one_model("f model_index.json {}\nd unet\n"));
    assert_true(is_one_model("d models--a--b/snapshots/c\n. models--a--b\n"));
    assert_true(is_one_model("d models--a--b/snapshots/c\n. models--a--b/snapshots/c\n"));
    assert_false(is_one_model("d models--a--b/blobs\n. models--a--b\n"));
    assert_false(is_one_model("d models--a--b/blobs\n. models--a--b/blobs\n"));
    assert_false(is_one_model("d models--a--b/snapshots/c\n"));
    assert_false(is_one_model(SET));
    assert_false(is_one_model("f README.md x\n"));
}

#define TWO_IN_ONE                                                                          \
    "{\"model.diffusion_model.a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}," \
    "\"first_stage_model.b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}"

static void test_components_of_one_file(void **state)
{
    struct unshard_view_options options = {.split = "first_stage_model.=vae"};
    (void)state;
    open_with("s m/all.safetensors 8 " TWO_IN_ONE "\n", &options);
    struct unshard_place place = look("m/vae"), above = look("m");
    assert_true(place.layout == above.layout);
    assert_true(unshard_node(place.layout, place.node)->made);
    assert_string_equal(unshard_node(place.layout, place.node)->name, "vae");
    assert_int_equal(unshard_node(place.layout, place.node)->child_count, 1);
    assert_int_equal(result_of_now("m/vae"), 0);
    assert_int_equal(result_of("m/vae/none"), -ENOENT);
    unshard_layout_release(place.layout);
    unshard_layout_release(above.layout);
    unshard_tree_close(tree);
    tree = NULL;
}

static bool is_split(const char *path)
{
    bool found;
    return node_in(path, "vae", &found).made;
}

/* Of a root of many models nothing is split unless that was asked for. */
static void test_what_is_split_by_itself(void **state)
{
    (void)state;
    open_tree("s m/all.safetensors 8 " TWO_IN_ONE "\ns new 4 " HEADER "\n");
    assert_false(is_split("m"));
    rename_on_disk("new", "model.safetensors");
    pass_a_second();
    assert_true(is_split("m"));
    rename_on_disk("model.safetensors", "new");
    pass_a_second();
    assert_false(is_split("m"));
    unshard_tree_close(tree);
    open_with("", &(struct unshard_view_options){.split = "auto"});
    assert_true(is_split("m"));
    unshard_tree_close(tree);
    open_with("", &(struct unshard_view_options){.split = "off"});
    rename_on_disk("new", "model.safetensors");
    assert_false(is_split("m"));
}

/* ---- markers of the hub's cache ----------------------------------------------------------------
 */

static void test_markers_of_what_is_added(void **state)
{
    (void)state;
    open_tree("s models--a--b/snapshots/c/sub/model-00001-of-00002.safetensors 4 " HEADER "\n"
              "s new 4 " HEADER_B "\n"
              "f models--a--b/.no_exist/c/sub/model.safetensors\n"
              "f models--a--b/.no_exist/c/sub/other.json\n"
              "f models--a--b/.no_exist/d/model.safetensors\n");
    assert_true(has("models--a--b/.no_exist/d", "model.safetensors"));
    assert_true(has("models--a--b/.no_exist/c/sub", "other.json"));
    assert_true(has("models--a--b/.no_exist/d", "model.safetensors"));
    rename_on_disk("new", "models--a--b/snapshots/c/sub/model-00002-of-00002.safetensors");
    pass_a_second();
    assert_int_equal(result_of_now("models--a--b/.no_exist/c/sub"), -EAGAIN);
    assert_false(has("models--a--b/.no_exist/c/sub", "model.safetensors"));
    assert_true(has("models--a--b/snapshots/c/sub", "model.safetensors"));
    assert_true(has("models--a--b/.no_exist/c/sub", "other.json"));
    assert_int_equal(result_of_now("models--a--b/.no_exist/c/sub"), 0);
    assert_int_equal(
        unlink(on_disk("models--a--b/snapshots/c/sub/model-00001-of-00002.safetensors")), 0);
    assert_int_equal(
        unlink(on_disk("models--a--b/snapshots/c/sub/model-00002-of-00002.safetensors")), 0);
    pass_a_second();
    assert_true(has("models--a--b/.no_exist/c/sub", "model.safetensors"));
}

static int set_up(void **state)
{
    (void)state;
    atomic_store(&now_ns, 100 * LIVE_FRESH_NS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unshard_tree_close(tree);
    tree = NULL;
    tree_clear(top);
    return 0;
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_looked_at_before_it_is_asked_for),
        TEST(test_a_directory_is_what_it_is_in_the_whole),
        TEST(test_what_is_no_directory),
        TEST(test_within_a_second_there_is_no_other_look),
        TEST(test_what_has_not_changed_stays),
        TEST(test_who_may_list_a_directory),
        TEST(test_who_may_list_all_on_the_way),
        TEST(test_the_later_look_says_who_may_list),
        TEST(test_directories_of_our_making_are_listed_as_theirs),
        TEST(test_a_shard_that_arrives_completes_its_set),
        TEST(test_another_content_is_another_layout),
        TEST(test_the_same_size_and_time_do_not_deceive),
        TEST(test_attributes_cost_no_layout),
        TEST(test_a_copy_holds_what_its_origin_does),
        TEST(test_what_is_another_file_is_another_view),
        TEST(test_directories_come_go_and_are_renamed),
        TEST(test_who_finds_nothing_makes_the_parent_look),
        TEST(test_the_source_is_followed),
        TEST(test_what_lies_elsewhere_counts),
        TEST(test_an_index_takes_files_of_directories_below),
        TEST(test_links_have_an_end),
        TEST(test_a_walk_through_links_ends),
        TEST(test_what_nobody_asks_for_is_forgotten),
        TEST(test_many_models_take_little),
        TEST(test_a_failing_directory_is_its_own_matter),
        TEST(test_several_lookers_are_served_by_one_look),
        TEST(test_nobody_waits_for_what_was_just_fresh),
        TEST(test_slow_looks_count_longer),
        TEST(test_looks_that_hang_are_told),
        TEST(test_a_look_that_is_always_slow_does_not_hang),
        TEST(test_what_is_told_of_looks_has_a_bound),
        TEST(test_lookers_while_it_changes),
        TEST(test_a_walk_finds_the_components_of_the_whole),
        TEST(test_a_walk_ends_when_told_to),
        TEST(test_a_pipeline_in_load_order),
        TEST(test_what_is_one_model),
        TEST(test_components_of_one_file),
        TEST(test_what_is_split_by_itself),
        TEST(test_markers_of_what_is_added),
    };
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
