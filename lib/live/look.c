/* SPDX-License-Identifier: MIT
 *
 * Opening a tree, and looking at its directories. */
#include "live/live.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of what nobody holds: more is forgotten. */
#define MOST_DIRECTORIES ((size_t)20000)
#define MOST_BYTES ((size_t)48 << 20)

static uint64_t monotonic_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int unshard_tree_open(const char *source, int directory, const struct unshard_view_options *options,
                      struct unshard_tree **out, struct unshard_error *error)
{
    struct unshard_tree *tree = calloc(1, sizeof *tree);
    if (tree == NULL)
        return error_no_memory(error);
    int result = checkpoint_place_open(source, directory, options, &tree->place, error);
    if (result != 0) {
        free(tree);
        return result;
    }
    pthread_mutex_init(&tree->lock, NULL);
    pthread_cond_init(&tree->looked, NULL);
    tree->most = MOST_DIRECTORIES;
    tree->most_bytes = MOST_BYTES;
    tree->clock = monotonic_clock;
    tree->directories.seed = monotonic_clock();
    tree->looks_end = &tree->first_look;
    *out = tree;
    return 0;
}

void unshard_tree_close(struct unshard_tree *tree)
{
    if (tree == NULL)
        return;
    directories_free(&tree->directories);
    pthread_cond_destroy(&tree->looked);
    pthread_mutex_destroy(&tree->lock);
    unshard_checkpoint_close(tree->place);
    free(tree);
}

int unshard_tree_directory(const struct unshard_tree *tree)
{
    return tree->place->source_fd;
}

const struct unshard_checkpoint *unshard_tree_root(const struct unshard_tree *tree)
{
    return tree->place;
}

void unshard_tree_cover(struct unshard_tree *tree, dev_t device)
{
    pthread_mutex_lock(&tree->lock);
    unshard_checkpoint_cover(tree->place, device);
    for (struct directory *at = tree->directories.newest; at != NULL; at = at->older)
        if (at->layout != NULL)
            unshard_checkpoint_cover(at->layout, device);
    pthread_mutex_unlock(&tree->lock);
}

/* ---- one directory -----------------------------------------------------------------------------
 */

/* How one directory is come by: its layout is the caller's to release. 0 or a negative errno. */
typedef int (*come_by)(struct unshard_tree *tree, const char *path,
                       const struct layout_context *context, struct unshard_checkpoint **out);

static bool counts_until(const struct directory *directory, unsigned times, uint64_t context,
                         uint64_t now)
{
    return directory->known && directory->context == context &&
           now < directory->began_ns + times * directory->fresh_ns;
}

static bool is_fresh(const struct directory *directory, uint64_t context, uint64_t now)
{
    return counts_until(directory, 1, context, now);
}

/* Somebody is looking, and what he found last is to be had meanwhile. */
static bool may_be_old(const struct directory *directory, uint64_t context, uint64_t now)
{
    return directory->looking && directory->layout != NULL &&
           counts_until(directory, 2, context, now);
}

static int take(const struct directory *directory, struct unshard_checkpoint **out)
{
    if (directory->layout == NULL)
        return directory->result;
    *out = unshard_layout_hold(directory->layout);
    return 0;
}

/* The layout of now. held: the one in force in this context, or NULL. */
static int find_layout(struct unshard_tree *tree, const char *path,
                       const struct layout_context *context, struct unshard_checkpoint *held,
                       struct unshard_checkpoint **out)
{
    struct unshard_error ignored;
    int result = held != NULL ? checkpoint_look_again(held, out) : 0;
    if (result != 0 || *out != NULL)
        return result;
    return checkpoint_lay_out(tree->place, context, path, out, &ignored);
}

static bool is_gone(int result)
{
    return result == -ENOENT || result == -ENOTDIR;
}

/* Whoever shows a directory that has gone is to be looked at again. */
static void make_parent_stale(struct unshard_tree *tree, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = strndup(path, slash != NULL ? (size_t)(slash - path) : 0);
    struct directory *above = parent != NULL ? directories_find(&tree->directories, parent) : NULL;
    if (above != NULL)
        above->fresh_ns = 0;
    free(parent);
}

/* Puts what a look has found in force. */
static void settle(struct unshard_tree *tree, struct directory *directory, int result,
                   struct unshard_checkpoint *layout)
{
    bool other = directory->layout != NULL && layout != directory->layout &&
                 (layout == NULL || layout->origin == NULL);
    live_look_ends(tree, directory);
    directory->known = result != -ENOMEM;
    directory->result = result;
    directories_set_layout(&tree->directories, directory, layout);
    if (other)
        directories_forget_vanished(&tree->directories, directory->path, layout);
    if (is_gone(result) && directory->path[0] != '\0')
        make_parent_stale(tree, directory->path);
    pthread_cond_broadcast(&tree->looked);
}

/* Looks at a directory: nobody else does. Lets go of the lock meanwhile. */
static void look(struct unshard_tree *tree, struct directory *directory,
                 const struct layout_context *context, uint64_t hash)
{
    struct unshard_checkpoint *held = NULL, *layout = NULL;
    if (directory->layout != NULL && directory->context == hash)
        held = unshard_layout_hold(directory->layout);
    uint64_t began = live_look_begins(tree, directory);
    pthread_mutex_unlock(&tree->lock);
    if (directory->path[0] == '\0')
        checkpoint_place_follow(tree->place);
    int result = find_layout(tree, directory->path, context, held, &layout);
    unshard_layout_release(held);
    uint64_t took = tree->clock() - began;
    pthread_mutex_lock(&tree->lock);
    directory->context = hash;
    directory->began_ns = began;
    directory->fresh_ns = 4 * took > LIVE_FRESH_NS ? 4 * took : LIVE_FRESH_NS;
    settle(tree, directory, result, layout);
}

static int visit(struct unshard_tree *tree, const char *path, const struct layout_context *context,
                 struct unshard_checkpoint **out)
{
    uint64_t hash = layout_context_hash(context), came = tree->clock();
    int result = -ENOMEM;
    pthread_mutex_lock(&tree->lock);
    struct directory *directory = directories_get(&tree->directories, path);
    if (directory != NULL) {
        directory->users++;
        while (directory->looking && !is_fresh(directory, hash, came) &&
               !may_be_old(directory, hash, came))
            pthread_cond_wait(&tree->looked, &tree->lock);
        if (!is_fresh(directory, hash, came) && !may_be_old(directory, hash, came))
            look(tree, directory, context, hash);
        result = take(directory, out);
        directory->users--;
        directories_shrink(&tree->directories, tree->most, tree->most_bytes);
    }
    pthread_mutex_unlock(&tree->lock);
    return result;
}

static int peek(struct unshard_tree *tree, const char *path, const struct layout_context *context,
                struct unshard_checkpoint **out)
{
    uint64_t hash = layout_context_hash(context), now = tree->clock();
    int result = -EAGAIN;
    pthread_mutex_lock(&tree->lock);
    const struct directory *directory = directories_find(&tree->directories, path);
    if (directory != NULL && (is_fresh(directory, hash, now) || may_be_old(directory, hash, now)))
        result = take(directory, out);
    pthread_mutex_unlock(&tree->lock);
    return result;
}

/* ---- the way to it -----------------------------------------------------------------------------
 */

/* How far a path was gone. */
struct way {
    struct unshard_tree *tree;
    come_by come_by;
    struct unshard_place at; /* what lies there is held */
    const char *split;       /* for all directories but the source */
    char path[PATH_MAX];     /* to there */
};

static int go(struct unshard_tree *tree, const char *path, come_by how, struct unshard_place *out);

/* Where the names of a path begin and end that say ".no_exist"; NULL: none does. */
static const char *markers_in(const char *path)
{
    static const char name[] = ".no_exist";
    for (; *path != '\0'; path += strcspn(path, "/"), path += *path == '/') {
        size_t length = strcspn(path, "/");
        if (length == sizeof name - 1 && memcmp(path, name, length) == 0 && path[length] == '/')
            return path;
    }
    return NULL;
}

/* The layout of the directory in snapshots/ that one of .no_exist/ is about. *out stays NULL when
 * it is none, or there is none. */
static int find_snapshot(const struct way *way, struct unshard_checkpoint **out)
{
    const char *markers = markers_in(way->path);
    struct unshard_place place = {0};
    char path[PATH_MAX];
    if (markers == NULL)
        return 0;
    int length = snprintf(path, sizeof path, "%.*ssnapshots%s", (int)(markers - way->path),
                          way->path, strchr(markers, '/'));
    int result = length < (int)sizeof path ? go(way->tree, path, way->come_by, &place) : -ENOENT;
    if (result == 0 && place.node == 0)
        *out = place.layout;
    else
        unshard_layout_release(place.layout);
    return result == -EAGAIN || result == -ENOMEM ? result : 0;
}

/* Goes into the directory that the path leads to now, out of the one above it. */
static int enter(struct way *way)
{
    struct unshard_checkpoint *snapshot = NULL, *layout = NULL;
    int result = find_snapshot(way, &snapshot);
    if (result == 0) {
        struct layout_context context = {
            .above = way->at.layout, .snapshot = snapshot, .split = way->split};
        result = way->come_by(way->tree, way->path, &context, &layout);
    }
    unshard_layout_release(snapshot);
    if (result != 0)
        return result;
    unshard_layout_release(way->at.layout);
    way->at = (struct unshard_place){.layout = layout};
    return 0;
}

/* Goes on by the first `length` bytes of name. */
static int step(struct way *way, const char *name, size_t length)
{
    size_t end = strlen(way->path);
    int written = snprintf(way->path + end, sizeof way->path - end, "%s%.*s", end > 0 ? "/" : "",
                           (int)length, name);
    if (written < 0 || (size_t)written >= sizeof way->path - end)
        return -ENAMETOOLONG;
    const struct unshard_node *node =
        unshard_node_child(way->at.layout, way->at.node, way->path + end + (end > 0));
    if (node == NULL)
        return -ENOENT;
    if (node->kind != UNSHARD_NODE_DIRECTORY)
        return -ENOTDIR;
    if (!node->made)
        return enter(way);
    way->at.node = unshard_node_number(way->at.layout, node);
    return 0;
}

static int go(struct unshard_tree *tree, const char *path, come_by how, struct unshard_place *out)
{
    struct way way = {.tree = tree, .come_by = how};
    struct layout_context context = {.split = tree->place->options.split};
    int result = how(tree, "", &context, &way.at.layout);
    if (result != 0)
        return result;
    way.split = tree->place->options.split;
    if (way.split == NULL && !live_is_one_model(tree, way.at.layout))
        way.split = "off";
    while (result == 0 && *path != '\0') {
        size_t length = strcspn(path, "/");
        result = step(&way, path, length);
        path += length + (path[length] == '/');
    }
    if (result == 0)
        *out = way.at;
    else
        unshard_layout_release(way.at.layout);
    return result;
}

int unshard_tree_look(struct unshard_tree *tree, const char *path, struct unshard_place *out,
                      struct unshard_error *error)
{
    int result = go(tree, path, visit, out);
    if (result == 0)
        return 0;
    if (result == -ENOMEM)
        return error_no_memory(error);
    return error_set(error, "unreadable", -result, "%s%s%s: cannot list: %s", tree->place->source,
                     path[0] != '\0' ? "/" : "", path, strerrordesc_np(-result));
}

int unshard_tree_look_now(struct unshard_tree *tree, const char *path, struct unshard_place *out)
{
    return go(tree, path, peek, out);
}
