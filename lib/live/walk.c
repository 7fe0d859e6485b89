/* SPDX-License-Identifier: MIT
 *
 * Many directories of a tree one after the other. */
#include "live/live.h"

#include "base/parallel.h"
#include "tree/loader_names.h"
#include "tree/scan.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Directories that are laid out at the same time: each may have threads of its own. */
#define AT_ONCE 32U

/* ---- one model ---------------------------------------------------------------------------------
 */

static bool has_child(const struct unshard_checkpoint *layout, const char *name,
                      enum unshard_node_kind kind)
{
    const struct unshard_node *node = unshard_node_child(layout, 0, name);
    return node != NULL && node->kind == kind;
}

/* The source is a repository of the hub's cache with snapshots, or lies in one of these. */
static bool is_of_hub(const struct unshard_checkpoint *place, const struct unshard_checkpoint *root)
{
    static const char snapshots[] = "/snapshots/";
    if (place->repository == NULL)
        return false;
    const char *rest = place->source + strlen(place->repository);
    return rest[0] == '\0' ? has_child(root, "snapshots", UNSHARD_NODE_DIRECTORY)
                           : strncmp(rest, snapshots, sizeof snapshots - 1) == 0;
}

bool live_is_one_model(const struct unshard_tree *tree, const struct unshard_checkpoint *root)
{
    return root->component_count > 0 || has_child(root, LOADER_MODEL_INDEX, UNSHARD_NODE_FILE) ||
           is_of_hub(tree->place, root);
}

bool unshard_tree_is_one_model(struct unshard_tree *tree)
{
    struct unshard_place root;
    if (unshard_tree_look(tree, "", &root, NULL) != 0)
        return false;
    bool is_one = live_is_one_model(tree, root.layout);
    unshard_layout_release(root.layout);
    return is_one;
}

/* ---- all directories ---------------------------------------------------------------------------
 */

struct walked {
    char *path;
    struct unshard_checkpoint *layout; /* held; NULL: it cannot be listed */
    size_t order;                      /* in which model_index.json of the source loads it */
};

struct walk {
    struct unshard_tree *tree;
    struct walked *items;
    size_t count, capacity;
    size_t first; /* of those that are looked at now */
    size_t nodes; /* of all layouts */
};

static int add(struct walk *walk, const char *above, const char *name)
{
    struct walked *grown = walk->items;
    if (walk->count == walk->capacity) {
        size_t capacity = walk->capacity * 2 + 16;
        if ((grown = reallocarray(grown, capacity, sizeof *grown)) == NULL)
            return -ENOMEM;
        walk->items = grown;
        walk->capacity = capacity;
    }
    char *path = NULL;
    if (asprintf(&path, "%s%s%s", above, above[0] != '\0' ? "/" : "", name) < 0)
        return -ENOMEM;
    grown[walk->count++] = (struct walked){.path = path};
    return 0;
}

static void look_at_number(void *context, uint32_t number)
{
    struct walk *walk = context;
    struct walked *item = &walk->items[walk->first + number];
    struct unshard_place place;
    if (unshard_tree_look(walk->tree, item->path, &place, NULL) == 0)
        item->layout = place.layout;
}

/* The directories in one that was looked at. */
static int add_children(struct walk *walk, size_t number)
{
    const struct unshard_checkpoint *layout = walk->items[number].layout;
    int result = 0;
    if (layout == NULL)
        return 0;
    walk->nodes += layout->node_count;
    const struct unshard_node *first = &layout->nodes[layout->nodes[0].first_child];
    for (uint32_t i = 0; i < layout->nodes[0].child_count && result == 0; i++)
        if (first[i].kind == UNSHARD_NODE_DIRECTORY && !first[i].made &&
            walk->nodes < SCAN_MAX_ENTRIES)
            result = add(walk, walk->items[number].path, first[i].name);
    return result;
}

/* Looks at all of them, level by level: each finds those of the next one. */
static int look_at_all(struct walk *walk)
{
    int result = add(walk, "", "");
    while (result == 0 && walk->first < walk->count) {
        size_t count = walk->count - walk->first;
        count = count < AT_ONCE ? count : AT_ONCE;
        parallel_run((uint32_t)count, look_at_number, walk);
        for (size_t i = 0; i < count && result == 0; i++)
            result = add_children(walk, walk->first + i);
        walk->first += count;
    }
    return result;
}

static size_t order_of(const struct unshard_checkpoint *root, const char *path)
{
    size_t at = 0, length = strcspn(path, "/");
    while (at < root->load_order_count && (strncmp(root->load_order[at], path, length) != 0 ||
                                           root->load_order[at][length] != '\0'))
        at++;
    return at;
}

static int compare_walked(const void *left, const void *right)
{
    const struct walked *a = left, *b = right;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return strcmp(a->path, b->path);
}

static int tell(const struct walk *walk, unshard_tree_found found, void *context)
{
    int result = 0;
    for (size_t i = 0; i < walk->count && result == 0; i++)
        if (walk->items[i].layout != NULL)
            result = found(context, walk->items[i].path, walk->items[i].layout);
    return result;
}

int unshard_tree_walk(struct unshard_tree *tree, unshard_tree_found found, void *context)
{
    struct walk walk = {.tree = tree};
    int result = look_at_all(&walk);
    if (result == 0 && walk.items[0].layout != NULL) {
        for (size_t i = 0; i < walk.count; i++)
            walk.items[i].order = order_of(walk.items[0].layout, walk.items[i].path);
        qsort(walk.items, walk.count, sizeof *walk.items, compare_walked);
        result = tell(&walk, found, context);
    }
    for (size_t i = 0; i < walk.count; i++) {
        unshard_layout_release(walk.items[i].layout);
        free(walk.items[i].path);
    }
    free(walk.items);
    malloc_trim(0); /* what all of them took meanwhile is much more than what stays */
    return result;
}

/* ---- a pipeline --------------------------------------------------------------------------------
 */

static int tell_of(struct unshard_tree *tree, const char *pipeline, const char *name,
                   unshard_tree_found found, void *context)
{
    struct unshard_place place;
    char *path = NULL;
    if (asprintf(&path, "%s%s%s", pipeline, pipeline[0] != '\0' ? "/" : "", name) < 0)
        return -ENOMEM;
    int result = 0;
    if (unshard_tree_look(tree, path, &place, NULL) == 0) {
        result = place.node == 0 ? found(context, path, place.layout) : 0;
        unshard_layout_release(place.layout);
    }
    free(path);
    return result;
}

/* All of them but number `at`: those behind it, then those before. */
static int tell_of_others(struct unshard_tree *tree, const char *pipeline,
                          const struct unshard_checkpoint *layout, uint32_t at,
                          unshard_tree_found found, void *context)
{
    uint32_t count = layout->load_order_count;
    int result = 0;
    for (uint32_t i = 1; i < count && result == 0; i++)
        result = tell_of(tree, pipeline, layout->load_order[(at + i) % count], found, context);
    return result;
}

int unshard_tree_pipeline(struct unshard_tree *tree, const char *path, unshard_tree_found found,
                          void *context)
{
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    char *pipeline = strndup(path, slash != NULL ? (size_t)(slash - path) : 0);
    struct unshard_place place = {0};
    int result = 0;
    if (pipeline == NULL)
        return -ENOMEM;
    if (path[0] != '\0' && unshard_tree_look(tree, pipeline, &place, NULL) == 0) {
        size_t at = order_of(place.layout, name);
        if (place.node == 0 && at < place.layout->load_order_count)
            result = tell_of_others(tree, pipeline, place.layout, (uint32_t)at, found, context);
        unshard_layout_release(place.layout);
    }
    free(pipeline);
    return result;
}
