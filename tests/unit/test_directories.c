/* SPDX-License-Identifier: MIT
 *
 * Directories that are listed several at once, and what their names are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tree/listing.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct source {
    char top[48];
    struct unshard_checkpoint checkpoint;
};

static void make(const struct source *source, const char *name, bool directory)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", source->top, name);
    if (directory) {
        assert_int_equal(mkdir(path, 0755), 0);
        return;
    }
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    close(fd);
}

static int setup(void **state)
{
    struct source *source = calloc(1, sizeof *source);
    strcpy(source->top, "/tmp/unshard-directories-XXXXXX");
    assert_non_null(mkdtemp(source->top));
    source->checkpoint.source = source->top;
    source->checkpoint.source_fd = open(source->top, O_RDONLY | O_DIRECTORY);
    make(source, "one", true);
    make(source, "one/b", false);
    make(source, "one/a", false);
    make(source, "one/c", true);
    make(source, "two", true);
    make(source, "two/d", false);
    *state = source;
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    struct source *source = *state;
    close(source->checkpoint.source_fd);
    nftw(source->top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(source);
    return 0;
}

static void test_several_at_once(void **state)
{
    struct source *source = *state;
    struct listing listings[] = {{.path = "one"}, {.path = "none"}, {.path = "two"}, {.path = ""}};
    assert_true(listings_read(&source->checkpoint, listings, 4, 6));
    assert_int_equal(listings[0].result, 0);
    assert_int_equal(listings[0].name_count, 3);
    assert_string_equal(listings[0].names[0], "a");
    assert_string_equal(listings[0].names[2], "c");
    assert_int_equal(listings[1].result, -ENOENT);
    assert_int_equal(listings[2].name_count, 1);
    assert_int_equal(listings[3].name_count, 2);
    for (int i = 0; i < 4; i++)
        assert_false(listings[i].cut);
    listings_free(listings, 4);
}

static void test_more_names_than_there_may_be(void **state)
{
    struct source *source = *state;
    struct listing listings[] = {{.path = "one"}, {.path = "two"}};
    assert_false(listings_read(&source->checkpoint, listings, 2, 3));
    assert_true(listings[0].name_count == 0 && listings[0].directory == NULL);
    assert_true(listings_read(&source->checkpoint, listings, 1, 2));
    assert_true(listings[0].cut);
    assert_int_equal(listings[0].name_count, 2);
    listings_free(listings, 2);
    assert_true(listings_read(&source->checkpoint, listings, 1, 3));
    assert_false(listings[0].cut);
    listings_free(listings, 2);
}

static struct look look_at(const struct source *source, const struct listing *listing,
                           const char *name)
{
    struct look look = {.listing = listing, .name = name};
    looks_take(&source->checkpoint, &look, 1);
    return look;
}

static void test_names(void **state)
{
    struct source *source = *state;
    char path[PATH_MAX];
    static const char *const links[][2] = {
        {"../two/d", "inside"}, {"/etc", "outside"}, {"nothing", "dangling"}, {"loop", "loop"}};
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/one/%s", source->top, links[i][1]);
        assert_int_equal(symlink(links[i][0], path), 0);
    }
    struct listing listing = {.path = "one"};
    assert_true(listings_read(&source->checkpoint, &listing, 1, 100));
    struct look look = look_at(source, &listing, "a");
    assert_true(look.result == 0 && look.target == NULL && S_ISREG(look.status.st_mode));
    look = look_at(source, &listing, "c");
    assert_true(look.result == 0 && S_ISDIR(look.status.st_mode));
    assert_int_equal(look_at(source, &listing, "missing").result, -ENOENT);
    static const int results[] = {0, -EXDEV, -ENOENT, -ELOOP};
    for (size_t i = 0; i < 4; i++) {
        look = look_at(source, &listing, links[i][1]);
        assert_true(look.result == 0 && S_ISLNK(look.status.st_mode));
        assert_string_equal(look.target, links[i][0]);
        assert_int_equal(look.target_result, results[i]);
        free(look.target);
    }
    listings_free(&listing, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_several_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_names_than_there_may_be, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
