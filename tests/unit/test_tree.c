/* SPDX-License-Identifier: MIT
 *
 * Every tree of tests/corpus/tree: what the names of the files promise, that nothing outside of the
 * tree is opened, that each directory by itself is what it is in the whole, and that layout=shards
 * shows what is on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/corpus.h"
#include "support/layout_check.h"
#include "support/tree_check.h"
#include "support/tree_input.h"

#define CORPUS "tests/corpus/tree"

static char top[] = "/tmp/unshard-tree-XXXXXX";

static unsigned count_failed(const struct unshard_checkpoint *checkpoint)
{
    unsigned failed = 0;
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        failed += checkpoint->components[i].failed;
    return failed;
}

static unsigned files_on_disk;

static int count_file(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)path, (void)where;
    files_on_disk += (kind == FTW_F && S_ISREG(status->st_mode)) || kind == FTW_SL;
    return 0;
}

/* Every file on disk is listed, nothing else is, and each is a view of itself. */
static bool is_as_on_disk(const struct unshard_checkpoint *checkpoint, const char *source)
{
    unsigned files = 0;
    for (uint32_t i = 0; i < checkpoint->node_count; i++) {
        const struct unshard_node *node = &checkpoint->nodes[i];
        files += node->kind == UNSHARD_NODE_SYMLINK;
        if (node->kind != UNSHARD_NODE_FILE)
            continue;
        const struct view *view = &checkpoint->views[node->view];
        files++;
        if (node->unlisted || view->map.count != 1 ||
            view->map.extents[0].source >= checkpoint->file_count ||
            strcmp(checkpoint->files[view->map.extents[0].source].path, view->path) != 0)
            return false;
    }
    for (uint32_t i = 0; i < checkpoint->component_count; i++) {
        const struct component *component = &checkpoint->components[i];
        if (component->view != UNSHARD_NO_VIEW &&
            strcmp(component->view_path, checkpoint->views[component->view].path) != 0)
            return false;
    }
    files_on_disk = 0;
    nftw(source, count_file, 16, FTW_PHYS);
    return files == files_on_disk;
}

/* The entry that the node was made from is on disk, of this kind and size; that it is hidden for
 * what it is or where it leads is another matter. */
static bool is_like_on_disk(const struct unshard_checkpoint *checkpoint, uint32_t number,
                            const char *source)
{
    const struct unshard_node *node = &checkpoint->nodes[number];
    char path[2 * PATH_MAX];
    struct stat status;
    if (node->kind != UNSHARD_NODE_FILE)
        return true;
    const struct view *view = &checkpoint->views[node->view];
    snprintf(path, sizeof path, "%s/%s", source, view->path);
    return !node->unlisted && !view->unreadable && stat(path, &status) == 0 &&
           (uint64_t)status.st_size == node->size && node->size == view->size &&
           view->prefetch == (view->component != NO_COMPONENT);
}

/* Everything that is shown is on disk, whatever it holds, and shown by itself; nothing of a
 * component that is there is missing. */
static bool is_untouched(const struct unshard_checkpoint *checkpoint, const char *source)
{
    bool same = count_failed(checkpoint) == 0;
    for (uint32_t i = 0; i < checkpoint->node_count; i++)
        same = same && is_like_on_disk(checkpoint, i, source);
    for (uint32_t v = 0; v < checkpoint->view_count; v++) {
        const struct extent_map *map = &checkpoint->views[v].map;
        same = same && map->count == (map->size > 0) &&
               (map->count == 0 || (map->extents[0].source < checkpoint->file_count &&
                                    map->extents[0].source_offset == 0));
    }
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        same = same && !checkpoint->files[i].failed;
    return same;
}

static void check_shards(const char *name, const char *source)
{
    struct unshard_view_options options = {.layout = UNSHARD_LAYOUT_SHARDS,
                                           .index = UNSHARD_INDEX_HIDE,
                                           .order = UNSHARD_ORDER_CANONICAL,
                                           .pickle = UNSHARD_PICKLE_ASIS,
                                           .split = "x.=y"};
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_error error = {0};
    assert_int_equal(unshard_checkpoint_open(source, &options, &checkpoint, &error), 0);
    const char *problem = check_tree(checkpoint, top);
    if (problem == NULL && !is_untouched(checkpoint, source))
        problem = "is not as it is on disk";
    if (problem == NULL && strncmp(name, "asis-", 5) == 0 && !is_as_on_disk(checkpoint, source))
        problem = "misses files of those on disk";
    if (problem != NULL)
        fail_msg("%s with layout=shards: %s", name, problem);
    unshard_checkpoint_close(checkpoint);
}

/* Each directory by itself is what it is in the whole. */
static void check_directories(const char *name, const char *source)
{
    for (int layout = UNSHARD_LAYOUT_MERGED; layout <= UNSHARD_LAYOUT_SHARDS; layout++) {
        struct unshard_view_options options = {.layout = (enum unshard_layout)layout};
        struct unshard_checkpoint *checkpoint = NULL;
        struct unshard_error error = {0};
        char what[1024];
        assert_int_equal(unshard_checkpoint_open(source, &options, &checkpoint, &error), 0);
        const char *problem = check_layouts(checkpoint, what);
        if (problem != NULL)
            fail_msg("%s with layout %d: %s", name, layout, problem);
        unshard_checkpoint_close(checkpoint);
    }
}

static void check(const char *name)
{
    char path[512], source[PATH_MAX];
    uint8_t text[TREE_MAX_TEXT];
    struct unshard_view_options options = {0};
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_error error = {0};
    snprintf(path, sizeof path, "%s/%s", CORPUS, name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text, file);
    fclose(file);
    tree_make(top, text, size, source);
    assert_int_equal(unshard_checkpoint_open(source, &options, &checkpoint, &error), 0);
    const char *problem = check_tree(checkpoint, top);
    if (problem != NULL)
        fail_msg("%s: %s", name, problem);
    unsigned failed = count_failed(checkpoint);
    bool as_named = strncmp(name, "refuse-", 7) == 0   ? checkpoint->component_count == 0
                    : strncmp(name, "reject-", 7) == 0 ? failed > 0
                    : strncmp(name, "asis-", 5) == 0
                        ? failed == 0 && is_as_on_disk(checkpoint, source)
                        : failed == 0;
    if (strncmp(name, "accept-", 7) == 0 && checkpoint->component_count == 0)
        as_named = false;
    if (!as_named)
        fail_msg("%s: %u components, %u failed", name, checkpoint->component_count, failed);
    unshard_checkpoint_close(checkpoint);
    check_directories(name, source);
    check_shards(name, source);
    tree_clear(top);
}

static void test_corpus(void **state)
{
    (void)state;
    corpus_each(CORPUS, 40, check);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_corpus)};
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
