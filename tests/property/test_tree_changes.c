/* SPDX-License-Identifier: MIT
 *
 * A tree that changes at random against one that is opened anew each time: a second after any
 * change each directory that somebody looks at is what it is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "live/live.h"
#include "property/random.h"
#include "support/layout_check.h"
#include "support/tree_input.h"

#include <fcntl.h>

#define ROUNDS 8
#define STEPS 60
#define MOST 100 /* directories */

static const char *const directories[] = {"",      "a/",      "a/b/",
                                          "part/", "a/part/", ".cache/huggingface/download/a/"};
static const char *const names[] = {
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "model_index.json",
    "config.json",
    "train.log",
    "SHA256SUMS",
    "model.safetensors.sha256",
    "pytorch_model.bin",
    "model-00002-of-00002.safetensors.incomplete",
    "model.safetensors.metadata",
    "part",
    "b",
    "one.safetensors",
};
/* A letter for the kind, as tree_input.h has them, and what follows the name there. */
static const char *const contents[] = {
    "s 4 {\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
    "s 4 {\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
    "s 8 {\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
    "s 3 {\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
    "f {\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
    "\"b\":\"model-00002-of-00002.safetensors\"}}",
    "f {\"weight_map\":{\"a\":\"part/model.safetensors\",\"b\":\"part/one.safetensors\"}}",
    "f {\"b\":[\"x\",\"y\"],\"part\":[\"x\",\"y\"],\"a\":[\"x\",\"y\"]}",
    "f 4444444444444444444444444444444444444444444444444444444444444444  model.safetensors",
    "f 4444444444444444444444444444444444444444444444444444444444444444  b/model.safetensors",
    "f 0123456789abcdef0123456789abcdef01234567",
    "f x",
    "f ",
    "l ../a/model.safetensors",
    "l part/one.safetensors",
    "l ../part",
    "l nowhere",
    "d ",
    "p ",
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static char top[] = "/tmp/unshard-changes-XXXXXX";
static const struct unshard_view_options options = {.split = "auto"};
static uint64_t now_ns;
static uint64_t current_seed;

static uint64_t test_clock(void)
{
    return now_ns;
}

static size_t below(struct random_state *random, size_t bound)
{
    return (size_t)(random_next(random) % bound);
}

static void choose(struct random_state *random, char out[256])
{
    snprintf(out, 256, "%s%s", directories[below(random, COUNT(directories))],
             names[below(random, COUNT(names))]);
}

static void on_disk(char out[PATH_MAX], const char *name)
{
    snprintf(out, PATH_MAX, "%s/%s", top, name);
}

static void make(struct random_state *random, const char *name)
{
    char line[1024], source[PATH_MAX];
    const char *content = contents[below(random, COUNT(contents))];
    snprintf(line, sizeof line, "%c %s %s\n", content[0], name, content + 2);
    tree_make(top, (const uint8_t *)line, strlen(line), source);
}

/* Of the same length, in place. */
static void scribble(struct random_state *random, const char *path)
{
    char byte = "ab\n x"[below(random, 5)];
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)below(random, (size_t)status.st_size)), 1);
    close(fd);
}

/* Something is changed, or nothing. */
static void change(struct random_state *random)
{
    char name[256], other[256], path[PATH_MAX], to[PATH_MAX];
    choose(random, name);
    choose(random, other);
    on_disk(path, name);
    on_disk(to, other);
    switch (below(random, 10)) {
    case 0:
        errno = unlink(path);
        break;
    case 1:
        errno = rename(path, to);
        break;
    case 2:
        errno = truncate(path, (off_t)below(random, 80));
        break;
    case 3:
        errno = chmod(path, below(random, 2) == 0 ? 0700 : 0644);
        break;
    case 4:
        scribble(random, path);
        break;
    case 5:
        errno = rmdir(path);
        break;
    case 6:
        errno = link(path, to);
        break;
    default:
        make(random, name);
    }
}

/* All directories in their order. */
struct walked {
    struct unshard_checkpoint *layouts[MOST];
    char paths[MOST][PATH_MAX];
    size_t count;
};

static int collect(void *context, const char *path, struct unshard_checkpoint *layout)
{
    struct walked *walked = context;
    assert_true(walked->count < MOST);
    snprintf(walked->paths[walked->count], PATH_MAX, "%s", path);
    walked->layouts[walked->count++] = unshard_layout_hold(layout);
    return 0;
}

static void let_go(struct walked *walked)
{
    for (size_t i = 0; i < walked->count; i++)
        unshard_layout_release(walked->layouts[i]);
    walked->count = 0;
}

static void check(struct unshard_tree *tree)
{
    static struct walked now, anew;
    struct unshard_tree *other = NULL;
    assert_int_equal(unshard_tree_walk(tree, collect, &now), 0);
    assert_int_equal(unshard_tree_open(top, -1, &options, &other, NULL), 0);
    assert_int_equal(unshard_tree_walk(other, collect, &anew), 0);
    for (size_t i = 0; i < now.count || i < anew.count; i++) {
        struct layout_pair pair = {.whole = anew.layouts[i], .layout = now.layouts[i]};
        if (i == now.count || i == anew.count || strcmp(now.paths[i], anew.paths[i]) != 0)
            fail_msg("UNSHARD_TEST_SEED=%llu: other directories", (unsigned long long)current_seed);
        if (!same_children(&pair, 0, 0) || !same_components(&pair) ||
            pair.whole->component_count != pair.layout->component_count)
            fail_msg("UNSHARD_TEST_SEED=%llu: \"%s\": %s", (unsigned long long)current_seed,
                     now.paths[i], pair.what);
    }
    let_go(&now);
    let_go(&anew);
    unshard_tree_close(other);
}

static void one_tree(uint64_t seed)
{
    struct random_state random = {seed};
    struct unshard_tree *tree = NULL;
    current_seed = seed;
    now_ns = 100 * LIVE_FRESH_NS;
    assert_int_equal(unshard_tree_open(top, -1, &options, &tree, NULL), 0);
    tree->clock = test_clock;
    for (int i = 0; i < STEPS; i++) {
        for (size_t changes = below(&random, 4); changes > 0; changes--)
            change(&random);
        now_ns += below(&random, 2) * LIVE_FRESH_NS / 2;
        struct unshard_place place = {0};
        if (unshard_tree_look(tree, below(&random, 2) == 0 ? "a" : "a/b", &place, NULL) == 0)
            unshard_layout_release(place.layout);
        if (below(&random, 2) == 0)
            continue;
        now_ns += LIVE_FRESH_NS;
        check(tree);
    }
    unshard_tree_close(tree);
    tree_clear(top);
}

static void test_changes(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(top));
    for (uint64_t i = 0; i < ROUNDS; i++)
        one_tree(random_seed() + i);
    assert_int_equal(rmdir(top), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_changes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
