/* SPDX-License-Identifier: MIT */
#include "fs/kernel/whole.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/inode_table.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/shown.h"
#include "fs/kernel/waiting.h"

struct directory {
    char *path;
    struct unshard_checkpoint *layout; /* held; compared under the mutex */
    struct inode **inodes;             /* of its files, with references: what keeps them attached */
    uint32_t inode_count;
};

struct whole {
    pthread_mutex_t mutex;
    struct directory **directories;
    size_t count, capacity;
};

/* ---- directories -------------------------------------------------------------------------------
 */

static struct directory *find(const struct whole *whole, const char *path)
{
    for (size_t i = 0; i < whole->count; i++)
        if (!strcmp(whole->directories[i]->path, path))
            return whole->directories[i];
    return NULL;
}

static void free_directory(struct directory *directory)
{
    if (directory->layout)
        unshard_layout_release(directory->layout);
    free(directory->inodes);
    free(directory->path);
    free(directory);
}

static int append(struct whole *whole, struct directory *directory)
{
    if (whole->count == whole->capacity) {
        size_t capacity = whole->capacity ? 2 * whole->capacity : 16;
        struct directory **grown = reallocarray(whole->directories, capacity, sizeof *grown);
        if (!grown)
            return -ENOMEM;
        whole->directories = grown;
        whole->capacity = capacity;
    }
    whole->directories[whole->count++] = directory;
    return 0;
}

/* A directory of which nothing is attached yet. */
static struct directory *add(struct whole *whole, const char *path,
                             struct unshard_checkpoint *layout)
{
    struct directory *directory = calloc(1, sizeof *directory);
    if (!directory)
        return NULL;
    directory->path = strdup(path);
    directory->layout = unshard_layout_hold(layout);
    pthread_mutex_lock(&whole->mutex);
    int result = directory->path ? append(whole, directory) : -ENOMEM;
    pthread_mutex_unlock(&whole->mutex);
    if (result == 0)
        return directory;
    free_directory(directory);
    return NULL;
}

static int survey(void *context, const char *path, struct unshard_checkpoint *layout)
{
    return add(context, path, layout) ? 0 : -ENOMEM;
}

int whole_survey(struct unshard_tree *tree, struct whole **out, struct unshard_error *error)
{
    struct whole *whole = calloc(1, sizeof *whole);
    if (!whole)
        return unshard_error_set(error, "no-memory", ENOMEM, "out of memory");
    pthread_mutex_init(&whole->mutex, NULL);
    int result = unshard_tree_walk(tree, survey, whole);
    if (result == 0) {
        *out = whole;
        return 0;
    }
    whole_free(whole);
    return unshard_error_set(error, result == -ENOMEM ? "no-memory" : "walk", -result,
                             "the source cannot be walked: %s", strerror(-result));
}

void whole_free(struct whole *whole)
{
    if (!whole)
        return;
    for (size_t i = 0; i < whole->count; i++)
        free_directory(whole->directories[i]);
    free(whole->directories);
    pthread_mutex_destroy(&whole->mutex);
    free(whole);
}

int whole_each(const struct whole *whole, unshard_tree_found found, void *context)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < whole->count; i++)
        result = found(context, whole->directories[i]->path, whole->directories[i]->layout);
    return result;
}

/* ---- attaching ---------------------------------------------------------------------------------
 */

/* What a directory has now. */
struct holding {
    struct filesystem *filesystem;
    struct unshard_error *error;
    struct inode **inodes;
    uint32_t count;
};

/* What cannot be attached, because there is too much, is so when it is opened, or tells why then.
 */
static int hold_file(void *context, const char *path, const struct unshard_place *place)
{
    struct holding *holding = context;
    struct inode_table *inodes = holding->filesystem->inodes;
    struct inode *inode = inode_table_enter(inodes, path, place);
    if (!inode)
        return unshard_error_set(holding->error, "no-memory", ENOMEM, "out of memory");
    holding->inodes[holding->count++] = inode;
    int result = inode_table_attach(inodes, inode, holding->error);
    return result == -ENOMEM ? result : 0;
}

/* The kernel has an inode of it, and perhaps pages, which are to stay. */
static bool is_known(const struct filesystem *filesystem, const char *path,
                     const struct unshard_place *place)
{
    struct inode *inode = inode_table_find(filesystem->inodes, path, place);
    uint32_t view = inode ? inode_table_view(filesystem->inodes, inode) : UNSHARD_NO_VIEW;
    bool known = view != UNSHARD_NO_VIEW && inode_table_view_known(filesystem->inodes, view);
    inode_table_put(filesystem->inodes, inode);
    return known;
}

/* The kernel is to have inodes for what is prefetched. */
static int look_up_file(void *context, const char *path, const struct unshard_place *place)
{
    const struct filesystem *filesystem = context;
    uint32_t view = unshard_node(place->layout, place->node)->view;
    if (unshard_view_listed(place->layout, view) &&
        unshard_view_component(place->layout, view) >= 0 && !is_known(filesystem, path, place))
        shown_look_up(filesystem, path);
    return waiting_closed(filesystem->waiting);
}

static void let_go(struct filesystem *filesystem, struct inode **inodes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        inode_table_put(filesystem->inodes, inodes[i]);
    free(inodes);
}

/* Attaches the files of a layout, and then lets go of those that the directory had before: what is
 * in both stays attached. */
static int attach(struct filesystem *filesystem, struct directory *directory,
                  struct unshard_checkpoint *layout, struct unshard_error *error)
{
    struct holding now = {.filesystem = filesystem, .error = error};
    now.inodes = calloc((size_t)unshard_view_count(layout) + 1, sizeof(struct inode *));
    if (!now.inodes)
        return unshard_error_set(error, "no-memory", ENOMEM, "out of memory");
    int result = shown_files(layout, hold_file, &now);
    let_go(filesystem, directory->inodes, directory->inode_count);
    directory->inodes = now.inodes;
    directory->inode_count = now.count;
    return result;
}

int whole_attach(struct filesystem *filesystem, struct unshard_error *error)
{
    struct whole *whole = filesystem->whole;
    int result = 0;
    for (size_t i = 0; result == 0 && i < whole->count; i++)
        result = attach(filesystem, whole->directories[i], whole->directories[i]->layout, error);
    return result;
}

/* ---- following ---------------------------------------------------------------------------------
 */

struct follow {
    struct waiting_job job;
    struct filesystem *filesystem;
    struct unshard_checkpoint *layout; /* held */
    char path[];
};

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    if (length == 0)
        return *path != '\0';
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* Whether the layout of `directory` has what a path below it goes through. */
static bool leads_to(const struct unshard_checkpoint *layout, const char *directory,
                     const char *path)
{
    const char *name = path + strlen(directory) + (*directory ? 1 : 0);
    char *first = strndup(name, strcspn(name, "/"));
    const struct unshard_node *child = first ? unshard_node_child(layout, 0, first) : NULL;
    bool leads = !first || (child && child->kind == UNSHARD_NODE_DIRECTORY);
    free(first);
    return leads;
}

/* The first directory below that is no more, taken out of the list; NULL: there is none. */
static struct directory *take_gone(struct whole *whole, const char *path,
                                   const struct unshard_checkpoint *layout)
{
    struct directory *gone = NULL;
    pthread_mutex_lock(&whole->mutex);
    for (size_t i = 0; !gone && i < whole->count; i++) {
        struct directory *directory = whole->directories[i];
        if (!is_below(directory->path, path) || leads_to(layout, path, directory->path))
            continue;
        gone = directory;
        whole->count--;
        memmove(&whole->directories[i], &whole->directories[i + 1],
                (whole->count - i) * sizeof gone);
    }
    pthread_mutex_unlock(&whole->mutex);
    return gone;
}

/* The directory has this layout now; false when it is known. */
static bool change(struct whole *whole, const char *path, struct unshard_checkpoint *layout,
                   struct directory **out)
{
    struct unshard_checkpoint *old = NULL;
    pthread_mutex_lock(&whole->mutex);
    struct directory *directory = *out = find(whole, path);
    bool changed = !directory || directory->layout != layout;
    if (directory && changed) {
        old = directory->layout;
        directory->layout = unshard_layout_hold(layout);
    }
    pthread_mutex_unlock(&whole->mutex);
    if (old)
        unshard_layout_release(old);
    if (!directory)
        *out = add(whole, path, layout);
    return changed && *out;
}

static void follow_below(struct filesystem *filesystem, const char *path,
                         struct unshard_checkpoint *layout);

static void follow(struct filesystem *filesystem, const char *path,
                   struct unshard_checkpoint *layout)
{
    struct directory *directory;
    struct unshard_error error; /* what cannot be attached now is when it is opened */
    if (waiting_closed(filesystem->waiting) || !change(filesystem->whole, path, layout, &directory))
        return;
    attach(filesystem, directory, layout, &error);
    if (filesystem->look_up)
        shown_files(layout, look_up_file, filesystem);
    for (struct directory *gone; (gone = take_gone(filesystem->whole, path, layout)) != NULL;) {
        let_go(filesystem, gone->inodes, gone->inode_count);
        gone->inodes = NULL;
        free_directory(gone);
    }
    follow_below(filesystem, path, layout);
}

/* Directories that are new. Not deeper than the source goes, which the tree bounds. */
static void follow_below(struct filesystem *filesystem, const char *path,
                         struct unshard_checkpoint *layout)
{
    const struct unshard_node *top = unshard_node(layout, 0);
    for (uint32_t i = 0; i < top->child_count; i++) {
        const struct unshard_node *child = unshard_node(layout, top->first_child + i);
        struct unshard_place place;
        struct directory *known = NULL;
        if (child->kind != UNSHARD_NODE_DIRECTORY || child->made || child->unlisted)
            continue;
        char *below = nodes_path(path, child->name);
        if (!below)
            return;
        pthread_mutex_lock(&filesystem->whole->mutex);
        known = find(filesystem->whole, below);
        pthread_mutex_unlock(&filesystem->whole->mutex);
        if (!known && unshard_tree_look(filesystem->tree, below, &place, NULL) == 0) {
            follow(filesystem, below, place.layout);
            unshard_layout_release(place.layout);
        }
        free(below);
    }
}

static void work(struct waiting_job *job)
{
    struct follow *one = (struct follow *)job;
    follow(one->filesystem, one->path, one->layout);
}

static void release(struct waiting_job *job)
{
    struct follow *one = (struct follow *)job;
    unshard_layout_release(one->layout);
    free(one);
}

void whole_seen(struct filesystem *filesystem, const char *path, const struct unshard_place *place)
{
    struct whole *whole = filesystem->whole;
    if (!whole || place->node != 0) /* of a directory of our making its own layout tells */
        return;
    pthread_mutex_lock(&whole->mutex);
    const struct directory *directory = find(whole, path);
    bool same = directory && directory->layout == place->layout;
    pthread_mutex_unlock(&whole->mutex);
    struct follow *one = same ? NULL : calloc(1, sizeof *one + strlen(path) + 1);
    if (!one)
        return;
    one->job = (struct waiting_job){.work = work, .release = release, .key = WAITING_KEY_LOOK_UP};
    one->filesystem = filesystem;
    one->layout = unshard_layout_hold(place->layout);
    memcpy(one->path, path, strlen(path) + 1);
    if (waiting_enter(filesystem->waiting, &one->job, NULL))
        release(&one->job);
}
