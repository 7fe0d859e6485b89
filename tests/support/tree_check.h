/* SPDX-License-Identifier: MIT
 *
 * What must hold of a checkpoint whatever directory it was opened from. */
#ifndef SUPPORT_TREE_CHECK_H
#define SUPPORT_TREE_CHECK_H

#include "tree/model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline bool is_below(const char *path, const char *folder)
{
    size_t length = folder != NULL ? strlen(folder) : 0;
    return length > 0 && strncmp(path, folder, length) == 0 && path[length] == '/';
}

/* The path lies in the blobs of the repository, or in those that the repositories of a cache share.
 */
static inline bool is_blob(const char *repository, const char *path)
{
    char blobs[PATH_MAX];
    if (repository == NULL)
        return false;
    snprintf(blobs, sizeof blobs, "%s/blobs", repository);
    if (is_below(path, blobs))
        return true;
    snprintf(blobs, sizeof blobs, "%s/../blobs", repository);
    char *shared = realpath(blobs, NULL);
    bool found = is_below(path, shared);
    free(shared);
    return found;
}

/* A file is a regular one of the checkpoint or of the hub cache that it is in, or it cannot be
 * opened. A word for what is wrong, or NULL. */
static inline const char *check_tree_file(const struct unshard_checkpoint *checkpoint,
                                          uint32_t number)
{
    char link[64], path[PATH_MAX];
    struct stat status;
    const char *problem = NULL;
    int fd = checkpoint_open_file(checkpoint, number, 0);
    if (fd < 0)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        problem = "opened what is no regular file";
    else if (!is_below(path, checkpoint->source) && !is_blob(checkpoint->repository, path))
        problem = "opened a file outside";
    close(fd);
    return problem;
}

static inline const char *check_tree_node(const struct unshard_checkpoint *checkpoint, uint32_t i)
{
    const struct unshard_node *node = &checkpoint->nodes[i];
    if (i > 0 && (node->parent >= i || node->name[0] == '\0' || strchr(node->name, '/') != NULL ||
                  strcmp(node->name, ".") == 0 || strcmp(node->name, "..") == 0))
        return "a node with a bad name or parent";
    if (node->kind == UNSHARD_NODE_FILE && node->view >= checkpoint->view_count)
        return "a file without a view";
    if (node->kind != UNSHARD_NODE_DIRECTORY)
        return NULL;
    for (uint32_t child = 0; child < node->child_count; child++) {
        uint32_t number = node->first_child + child;
        if (number <= i || number >= checkpoint->node_count ||
            checkpoint->nodes[number].parent != i)
            return "a child that is not one";
        if (child > 0 &&
            strcmp(checkpoint->nodes[number - 1].name, checkpoint->nodes[number].name) >= 0)
            return "children that are not sorted, or two of one name";
    }
    return NULL;
}

static inline const char *check_tree_component(const struct component *component)
{
    if (component->failed && (component->error.code == NULL || component->error.message[0] == '\0'))
        return "a component failed without a reason";
    return NULL;
}

static inline const char *check_tree_view(const struct unshard_checkpoint *checkpoint, uint32_t i)
{
    const struct view *view = &checkpoint->views[i];
    for (size_t e = 0; e < view->map.count; e++)
        if (view->map.extents[e].source != EXTENT_LITERAL &&
            view->map.extents[e].source >= checkpoint->file_count)
            return "an extent of no file";
    if (view->unreadable)
        return view->map.count == 0 ? NULL : "extents of a view that cannot be read";
    return view->size == view->map.size ? NULL : "a view of another size than its extents";
}

/* Something that does not hold, or NULL. The checkpoint was opened from below `top`. */
static inline const char *check_tree(const struct unshard_checkpoint *checkpoint, const char *top)
{
    const char *problem = NULL;
    if (checkpoint->repository != NULL &&
        ((!is_below(checkpoint->source, checkpoint->repository) &&
          strcmp(checkpoint->source, checkpoint->repository) != 0) ||
         !is_below(checkpoint->repository, top)))
        return "a hub cache that the checkpoint is not in";
    for (uint32_t i = 0; problem == NULL && i < checkpoint->file_count; i++)
        problem = check_tree_file(checkpoint, i);
    for (uint32_t i = 0; problem == NULL && i < checkpoint->node_count; i++)
        problem = check_tree_node(checkpoint, i);
    for (uint32_t i = 0; problem == NULL && i < checkpoint->component_count; i++)
        problem = check_tree_component(&checkpoint->components[i]);
    for (uint32_t i = 0; problem == NULL && i < checkpoint->view_count; i++)
        problem = check_tree_view(checkpoint, i);
    return problem;
}

#endif
