/* SPDX-License-Identifier: MIT
 *
 * Which files are looked at: with what the kernel really tells of a temporary directory, with one
 * that never tells, and with watches that run out. Rounds follow each other without waiting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANY = 3000, OTHERS = 2000 };

struct tree {
    char top[48], source[64];
    struct unshard_checkpoint checkpoint;
    struct source_file *files;
    struct watch *watch;
    bool looked[MANY]; /* at which the last round looked */
    uint32_t count;
};

/* ---- a source ----------------------------------------------------------------------------------
 */

static const char *at(const struct tree *tree, const char *name)
{
    static char paths[2][PATH_MAX]; /* two of them may be used in one call */
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, PATH_MAX, "%s/%s", tree->top, name);
    return path;
}

static void write_to(const struct tree *tree, const char *name, const char *text)
{
    int fd = open(at(tree, name), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void make_directory(const struct tree *tree, const char *name)
{
    assert_int_equal(mkdir(at(tree, name), 0755), 0);
}

static void rename_to(const struct tree *tree, const char *from, const char *to)
{
    assert_int_equal(rename(at(tree, from), at(tree, to)), 0);
}

static void link_to(const struct tree *tree, const char *target, const char *name)
{
    assert_int_equal(symlink(target, at(tree, name)), 0);
}

static int setup(void **state)
{
    struct tree *tree = calloc(1, sizeof *tree);
    strcpy(tree->top, "/tmp/unshard-watch-XXXXXX");
    assert_non_null(mkdtemp(tree->top));
    make_directory(tree, "source");
    snprintf(tree->source, sizeof tree->source, "%s/source", tree->top);
    tree->files = calloc(MANY, sizeof *tree->files);
    tree->checkpoint.source = tree->source;
    tree->checkpoint.files = tree->files;
    tree->checkpoint.source_fd = open(tree->source, O_RDONLY | O_DIRECTORY);
    *state = tree;
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    struct tree *tree = *state;
    watch_free(tree->watch);
    close(tree->checkpoint.source_fd);
    nftw(tree->top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(tree->files);
    free(tree);
    return 0;
}

static uint32_t add_path(struct tree *tree, const char *path)
{
    tree->files[tree->checkpoint.file_count].path = path;
    return tree->checkpoint.file_count++;
}

static bool always(int directory)
{
    (void)directory;
    return true;
}

static bool never(int directory)
{
    (void)directory;
    return false;
}

static void round_of(struct tree *tree)
{
    const uint32_t *files;
    memset(tree->looked, 0, sizeof tree->looked);
    tree->count = watch_round(tree->watch, &files);
    for (uint32_t i = 0; i < tree->count; i++) {
        assert_true(files[i] < tree->checkpoint.file_count);
        assert_false(tree->looked[files[i]]); /* each once */
        tree->looked[files[i]] = true;
    }
}

static void begin(struct tree *tree, bool (*tells)(int), uint32_t most)
{
    struct notices_options options = {.tells = tells, .most_directories = most};
    assert_int_equal(watch_create(&tree->checkpoint, &options, &tree->watch), 0);
    for (uint32_t i = 0; i < tree->checkpoint.file_count; i++)
        watch_add(tree->watch, i);
    round_of(tree);
}

/* Behind many others that are looked at in turn a look means something. */
static void begin_behind_others(struct tree *tree)
{
    static char names[OTHERS][32];
    make_directory(tree, "source/others");
    for (int i = 0; i < OTHERS; i++) {
        snprintf(names[i], sizeof names[i], "others/%d", i);
        add_path(tree, names[i]);
    }
    begin(tree, always, 0);
    for (uint32_t i = 0; i < tree->checkpoint.file_count; i++)
        assert_true(watch_is_told(tree->watch, i));
    while (tree->looked[0] || tree->count > 100)
        round_of(tree);
}

/* The next round looks at the first file; or it does not. */
static bool is_noticed(struct tree *tree)
{
    round_of(tree);
    bool looked = tree->looked[0];
    while (tree->looked[0]) /* some changes are told of in several ways, all of them by now */
        round_of(tree);
    return looked;
}

/* ---- what the kernel tells ---------------------------------------------------------------------
 */

static void test_changes_of_a_file(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    begin_behind_others(tree);
    assert_false(is_noticed(tree));
    write_to(tree, "source/a", "two");
    assert_true(is_noticed(tree));
    assert_int_equal(chmod(at(tree, "source/a"), 0600), 0);
    assert_true(is_noticed(tree));
    write_to(tree, "source/new", "three");
    assert_false(is_noticed(tree)); /* nobody asked for it */
    rename_to(tree, "source/new", "source/a");
    assert_true(is_noticed(tree));
    write_to(tree, "source/a", "the new one");
    assert_true(is_noticed(tree));
    assert_int_equal(unlink(at(tree, "source/a")), 0);
    assert_true(is_noticed(tree));
    assert_false(is_noticed(tree));
    write_to(tree, "source/a", "four");
    assert_true(is_noticed(tree));
    assert_false(is_noticed(tree));
}

/* While it is open and half written, too. */
static void test_a_write_that_goes_on(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    begin_behind_others(tree);
    int fd = open(at(tree, "source/a"), O_WRONLY);
    for (int i = 0; i < 3; i++) {
        assert_false(is_noticed(tree));
        assert_int_equal(pwrite(fd, "x", 1, 0), 1);
        assert_true(is_noticed(tree));
    }
    close(fd);
}

static void test_a_write_through_a_mapping(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    begin_behind_others(tree);
    int fd = open(at(tree, "source/a"), O_RDWR);
    char *mapping = mmap(NULL, 3, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    mapping[0] = 'x';
    munmap(mapping, 3);
    close(fd);
    assert_true(is_noticed(tree));
}

static void test_directories_on_the_way(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "x/y/a");
    make_directory(tree, "source/x");
    make_directory(tree, "source/x/y");
    write_to(tree, "source/x/y/a", "one");
    begin_behind_others(tree);
    rename_to(tree, "source/x", "source/old");
    assert_true(is_noticed(tree));
    make_directory(tree, "source/x");
    assert_true(is_noticed(tree));
    make_directory(tree, "source/x/y");
    assert_true(is_noticed(tree));
    write_to(tree, "source/x/y/a", "two");
    assert_true(is_noticed(tree));
    write_to(tree, "source/x/y/a", "three");
    assert_true(is_noticed(tree));
    assert_int_equal(unlink(at(tree, "source/x/y/a")), 0);
    assert_int_equal(rmdir(at(tree, "source/x/y")), 0);
    assert_true(is_noticed(tree));
    rename_to(tree, "source/old/y", "source/x/y");
    assert_true(is_noticed(tree));
    write_to(tree, "source/x/y/a", "four");
    assert_true(is_noticed(tree));
    assert_false(is_noticed(tree));
    assert_true(watch_is_told(tree->watch, 0));
}

/* As in the hub's cache: the link of a revision leads to a blob. */
static void test_symlinks(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "snapshots/r/a");
    make_directory(tree, "source/snapshots");
    make_directory(tree, "source/snapshots/r");
    make_directory(tree, "source/blobs");
    write_to(tree, "source/blobs/one", "one");
    write_to(tree, "source/blobs/two", "two");
    link_to(tree, "../../blobs/one", "source/snapshots/r/a");
    begin_behind_others(tree);
    write_to(tree, "source/blobs/two", "two!");
    assert_false(is_noticed(tree));
    write_to(tree, "source/blobs/one", "one!");
    assert_true(is_noticed(tree));
    assert_int_equal(chmod(at(tree, "source/blobs/one"), 0600), 0);
    assert_true(is_noticed(tree));
    link_to(tree, "../../blobs/two", "source/snapshots/r/new");
    rename_to(tree, "source/snapshots/r/new", "source/snapshots/r/a");
    assert_true(is_noticed(tree));
    write_to(tree, "source/blobs/two", "two!!");
    assert_true(is_noticed(tree));
    rename_to(tree, "source/blobs", "source/gone");
    assert_true(is_noticed(tree));
    make_directory(tree, "source/blobs");
    assert_true(is_noticed(tree));
    write_to(tree, "source/blobs/two", "another");
    assert_true(is_noticed(tree));
    assert_false(is_noticed(tree));
}

/* "current" is a symlink that is turned to the next version, and a file's own link goes that way.
 */
static void test_links_through_links(void **state)
{
    struct tree *tree = *state;
    char target[PATH_MAX];
    add_path(tree, "a");
    make_directory(tree, "one");
    make_directory(tree, "two");
    write_to(tree, "one/a", "one");
    write_to(tree, "two/a", "two");
    link_to(tree, "one", "current");
    snprintf(target, sizeof target, "%s/current/a", tree->top);
    link_to(tree, target, "source/a");
    begin_behind_others(tree);
    write_to(tree, "one/a", "one!");
    assert_true(is_noticed(tree));
    link_to(tree, "two", "new");
    rename_to(tree, "new", "current");
    assert_true(is_noticed(tree));
    write_to(tree, "two/a", "two!");
    assert_true(is_noticed(tree));
}

static void test_links_that_lead_nowhere(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "loop");
    add_path(tree, "dangling");
    add_path(tree, "through/a/file");
    link_to(tree, "loop", "source/loop");
    link_to(tree, "nothing/there", "source/dangling");
    write_to(tree, "source/through", "");
    begin(tree, always, 0);
    assert_false(watch_is_told(tree->watch, 0));
    make_directory(tree, "source/nothing");
    round_of(tree);
    assert_true(tree->looked[1]);
    write_to(tree, "source/nothing/there", "");
    round_of(tree);
    assert_true(tree->looked[1]);
    assert_true(watch_is_told(tree->watch, 1));
}

/* Somebody may write to it by a name that is not watched. */
static void test_a_file_with_two_names_is_not_told_of(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    assert_int_equal(link(at(tree, "source/a"), at(tree, "other")), 0);
    begin(tree, always, 0);
    assert_false(watch_is_told(tree->watch, 0));
    assert_int_equal(unlink(at(tree, "other")), 0);
    round_of(tree); /* it is looked at in turn, and is told of from then on */
    assert_true(watch_is_told(tree->watch, 0));
}

static void test_the_source_is_another_directory(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    begin_behind_others(tree);
    rename_to(tree, "source", "old");
    assert_true(is_noticed(tree));
    make_directory(tree, "source");
    int fd = open(tree->source, O_RDONLY | O_DIRECTORY);
    assert_true(dup3(fd, tree->checkpoint.source_fd, O_CLOEXEC) >= 0);
    close(fd);
    watch_look_at_all(tree->watch);
    round_of(tree);
    assert_int_equal(tree->count, tree->checkpoint.file_count);
    while (tree->looked[0])
        round_of(tree);
    write_to(tree, "source/a", "two");
    assert_true(is_noticed(tree));
}

/* More than the kernel keeps: all are looked at, and told of again afterwards. */
static void test_what_was_lost(void **state)
{
    struct tree *tree = *state;
    unsigned events = 0, most = 0;
    FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    if (limit == NULL || fscanf(limit, "%u", &most) != 1 || most > 100000)
        skip();
    fclose(limit);
    add_path(tree, "a");
    write_to(tree, "source/a", "one");
    begin_behind_others(tree);
    for (; events < most + 2; events += 2) { /* two in turn, or the kernel makes one of them */
        assert_int_equal(chmod(at(tree, "source/a"), 0600), 0);
        assert_int_equal(chmod(at(tree, "source/others"), 0755), 0);
    }
    round_of(tree);
    assert_int_equal(tree->count, tree->checkpoint.file_count);
    while (tree->looked[0])
        round_of(tree);
    write_to(tree, "source/a", "two");
    assert_true(is_noticed(tree));
}

/* ---- what it does not tell ---------------------------------------------------------------------
 */

static void add_many(struct tree *tree)
{
    static char names[MANY][16];
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        add_path(tree, names[i]);
    }
}

/* How many rounds it takes to look at every file, with at most so many in each. */
static unsigned rounds_for_all(struct tree *tree, uint32_t most)
{
    bool seen[MANY] = {false};
    unsigned rounds = 0;
    for (uint32_t left = tree->checkpoint.file_count; left > 0; rounds++) {
        round_of(tree);
        assert_true(tree->count <= most);
        assert_true(tree->count > 0);
        for (uint32_t i = 0; i < tree->checkpoint.file_count; i++) {
            left -= tree->looked[i] && !seen[i];
            seen[i] = seen[i] || tree->looked[i];
        }
    }
    return rounds;
}

static void test_where_nothing_is_told_all_are_looked_at_in_turn(void **state)
{
    struct tree *tree = *state;
    add_many(tree);
    begin(tree, never, 0);
    assert_false(watch_is_told(tree->watch, 7));
    assert_int_equal(rounds_for_all(tree, WATCH_IN_TURN), (MANY - 1) / WATCH_IN_TURN + 1);
    uint32_t asked_for = tree->looked[7] ? 1007 : 7; /* its turn is not the next one */
    watch_look(tree->watch, asked_for);
    round_of(tree);
    assert_true(tree->looked[asked_for]);
    round_of(tree);
    assert_false(tree->looked[asked_for]);
}

static void test_few_files_are_looked_at_each_time(void **state)
{
    struct tree *tree = *state;
    add_path(tree, "a");
    add_path(tree, "b");
    begin(tree, never, 0);
    for (int i = 0; i < 3; i++) {
        round_of(tree);
        assert_int_equal(tree->count, 2);
    }
}

static void test_what_is_told_of_is_looked_at_in_turn_too(void **state)
{
    struct tree *tree = *state;
    add_many(tree);
    begin(tree, always, 0);
    assert_true(watch_is_told(tree->watch, 7));
    while (tree->count > 100)
        round_of(tree);
    assert_in_range(rounds_for_all(tree, 21), MANY / 21, 600);
}

static bool round_has(struct tree *tree, uint32_t file)
{
    const uint32_t *files;
    uint32_t count = watch_round(tree->watch, &files);
    for (uint32_t i = 0; i < count; i++)
        if (files[i] == file)
            return true;
    return false;
}

/* Of more files than a round has, what happens to the last is told of before its turn comes. */
static void test_what_is_not_looked_at_yet_is_told_of(void **state)
{
    enum { COUNT = 4 * WATCH_AT_ONCE };
    static char names[COUNT][16];
    struct tree *tree = *state;
    struct notices_options options = {.tells = always};
    free(tree->files);
    tree->files = calloc(COUNT, sizeof *tree->files);
    tree->checkpoint.files = tree->files;
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "%u", i);
        add_path(tree, names[i]);
    }
    assert_int_equal(watch_create(&tree->checkpoint, &options, &tree->watch), 0);
    for (uint32_t i = 0; i < COUNT; i++)
        watch_add(tree->watch, i);
    assert_false(round_has(tree, COUNT - 1));
    assert_false(round_has(tree, COUNT - 1));
    write_to(tree, "source/16383", "x");
    assert_true(round_has(tree, COUNT - 1));
    assert_true(watch_is_told(tree->watch, COUNT - 1));
}

static void test_others_are_not_watched(void **state)
{
    struct tree *tree = *state;
    struct notices_options options = {.tells = always};
    add_path(tree, "a");
    add_path(tree, "b");
    assert_int_equal(watch_create(&tree->checkpoint, &options, &tree->watch), 0);
    watch_add(tree->watch, 1);
    watch_look(tree->watch, 0);
    watch_look_at_all(tree->watch);
    for (int i = 0; i < 3; i++) {
        round_of(tree);
        assert_int_equal(tree->count, 1);
        assert_true(tree->looked[1]);
    }
    assert_false(watch_is_told(tree->watch, 0));
}

/* Three directories may be watched: the source and two more. What there is no watch for any more is
 * looked at in turn, and told of once there is. */
static void test_watches_run_out(void **state)
{
    struct tree *tree = *state;
    static const char *const names[] = {"a/f", "b/f", "c/f", "d/f"};
    for (size_t i = 0; i < 4; i++) {
        char directory[16];
        snprintf(directory, sizeof directory, "source/%c", names[i][0]);
        make_directory(tree, directory);
        add_path(tree, names[i]);
    }
    begin(tree, always, 3);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(watch_is_told(tree->watch, i), i < 2);
    for (int i = 0; i < 100; i++) {
        round_of(tree);
        assert_true(tree->looked[2] && tree->looked[3]);
    }
    assert_int_equal(rmdir(at(tree, "source/a")), 0);
    round_of(tree);
    round_of(tree);
    assert_true(watch_is_told(tree->watch, 2));
    write_to(tree, "source/c/f", "x");
    round_of(tree);
    assert_true(tree->looked[2]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_changes_of_a_file),
        TEST(test_a_write_that_goes_on),
        TEST(test_a_write_through_a_mapping),
        TEST(test_directories_on_the_way),
        TEST(test_symlinks),
        TEST(test_links_through_links),
        TEST(test_links_that_lead_nowhere),
        TEST(test_a_file_with_two_names_is_not_told_of),
        TEST(test_the_source_is_another_directory),
        TEST(test_what_was_lost),
        TEST(test_where_nothing_is_told_all_are_looked_at_in_turn),
        TEST(test_few_files_are_looked_at_each_time),
        TEST(test_what_is_told_of_is_looked_at_in_turn_too),
        TEST(test_what_is_not_looked_at_yet_is_told_of),
        TEST(test_others_are_not_watched),
        TEST(test_watches_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
