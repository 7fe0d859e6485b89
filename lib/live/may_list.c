/* SPDX-License-Identifier: MIT
 *
 * Who may list a directory, by what is known of it and of all on the way to it. Nothing is looked
 * at, so this also answers while storage does not. */
#include "live/live.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* How far a path was gone. */
struct way {
    const struct directories *directories;
    const struct directory *in;     /* whose layout shows what is there; NULL: that is not known */
    uint32_t node;                  /* of what is there, in that layout */
    struct permissions permissions; /* of what is there */
    char path[PATH_MAX];            /* to there */
};

static struct permissions of_node(const struct unshard_node *node)
{
    return (struct permissions){node->uid, node->gid, node->mode};
}

/* Goes into the directory that the path leads to now. Both its own layout and that of the one above
 * it, which shows it as this node, say whose it is: the later look counts. */
static void enter(struct way *way, const struct unshard_node *shown)
{
    const struct directory *above = way->in;
    const struct directory *in = directories_find(way->directories, way->path);
    way->in = in != NULL && in->layout != NULL ? in : NULL;
    way->node = 0;
    if (shown == NULL || (way->in != NULL && in->began_ns >= above->began_ns))
        shown = way->in != NULL ? unshard_node(in->layout, 0) : NULL;
    way->permissions = shown != NULL ? of_node(shown) : (struct permissions){0};
}

/* Goes on by the first `length` bytes of name. False: that is not shown, or not known. */
static bool step(struct way *way, const char *name, size_t length)
{
    size_t end = strlen(way->path);
    int written = snprintf(way->path + end, sizeof way->path - end, "%s%.*s", end > 0 ? "/" : "",
                           (int)length, name);
    if (way->in == NULL || written < 0 || (size_t)written >= sizeof way->path - end)
        return false;
    const struct unshard_checkpoint *layout = way->in->layout;
    const struct unshard_node *shown =
        unshard_node_child(layout, way->node, way->path + end + (end > 0));
    if (shown == NULL || shown->kind != UNSHARD_NODE_DIRECTORY)
        return false;
    if (shown->made) /* it has the permissions of the one that it is in */
        way->node = unshard_node_number(layout, shown);
    else
        enter(way, shown);
    return true;
}

bool unshard_tree_may_list(struct unshard_tree *tree, const char *path,
                           const struct unshard_user *user)
{
    struct way way = {.directories = &tree->directories};
    pthread_mutex_lock(&tree->lock);
    enter(&way, NULL);
    bool may = way.in != NULL && permissions_let_list(&way.permissions, user);
    while (may && *path != '\0') {
        size_t length = strcspn(path, "/");
        may = step(&way, path, length) && permissions_let_list(&way.permissions, user);
        path += length + (path[length] == '/');
    }
    pthread_mutex_unlock(&tree->lock);
    return may;
}
