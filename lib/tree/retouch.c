/* SPDX-License-Identifier: MIT
 *
 * A directory in which nothing has changed but the attributes of what is shown as it is (a log that
 * grows, a file that was touched) is not laid out anew: headers of shards need not be read again
 * for that. There is a copy of its layout instead, which holds the one that was laid out and has
 * all of its strings and maps. */
#include "tree/identity.h"
#include "tree/scan.h"
#include "tree/trace.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static const struct stat *status_of(const struct look *look)
{
    return look->target != NULL ? &look->target_status : &look->status;
}

static void retouch_node(struct unshard_node *node, const struct stat *status)
{
    node->mtime_ns = nanoseconds(status->st_mtim);
    node->mode = (node->mode & S_IFMT) | (status->st_mode & 0777 & ~(mode_t)0222);
    node->uid = status->st_uid;
    node->gid = status->st_gid;
}

static void retouch_source(struct source_file *file, const struct stat *status)
{
    file->size = (uint64_t)status->st_size;
    file->mtime_ns = nanoseconds(status->st_mtim);
    file->ctime_ns = nanoseconds(status->st_ctim);
    file->device = status->st_dev;
    file->inode = status->st_ino;
    file->mode = status->st_mode;
    file->uid = status->st_uid;
    file->gid = status->st_gid;
}

/* The view of a file as it is, of another size. False: no memory. */
static bool retouch_view(struct view *view, uint32_t file, uint64_t size)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;
    if (extent_map_append_source(&builder, file, 0, size) != 0) {
        extent_map_builder_free(&builder);
        return false;
    }
    if (extent_map_finish(&builder, &map) != 0)
        return false;
    view->map = map;
    view->size = size;
    return true;
}

static bool retouch_child(struct unshard_checkpoint *copy, const struct traced_child *child,
                          const struct look *look)
{
    const struct unshard_node *found = unshard_node_child(copy, 0, look->name);
    if (found == NULL)
        return true;
    struct unshard_node *node = &copy->nodes[found - copy->nodes];
    const struct stat *status = status_of(look);
    retouch_node(node, status);
    if (child->use != TRACED_FILE)
        return true;
    retouch_source(&copy->files[child->file], status);
    if (node->size == (uint64_t)status->st_size)
        return true;
    node->size = (uint64_t)status->st_size;
    return retouch_view(&copy->views[node->view], child->file, node->size);
}

/* Directories of our making look like the one that they are in. */
static void retouch_self(struct unshard_checkpoint *copy, const struct stat *status)
{
    for (uint32_t i = 0; i < copy->node_count; i++)
        if (i == 0 || copy->nodes[i].made)
            retouch_node(&copy->nodes[i], status);
}

static bool retouch_all(struct unshard_checkpoint *copy, struct trace *trace,
                        const struct retouch *now)
{
    bool done = true;
    for (uint32_t i = 0; i < trace->child_count && done; i++) {
        struct traced_child *child = &trace->children[i];
        struct seen seen = look_seen(&now->children[i]);
        if (child->use != TRACED_UNUSED && seen.rest != child->seen.rest)
            done = retouch_child(copy, child, &now->children[i]);
        child->seen = seen;
    }
    retouch_self(copy, now->self);
    return done;
}

static void *copy_array(struct unshard_checkpoint *copy, const void *array, size_t count,
                        size_t size)
{
    void *made = arena_alloc_array(&copy->arena, count, size);
    if (made != NULL && count > 0)
        memcpy(made, array, count * size);
    return made;
}

/* The arrays of an origin that may be changed. False: no memory. */
static bool copy_arrays(struct unshard_checkpoint *copy, struct trace *trace)
{
    const struct unshard_checkpoint *origin = copy->origin;
    copy->view_count = 0;
    copy->views = copy_array(copy, origin->views, origin->view_count, sizeof *origin->views);
    copy->nodes = copy_array(copy, origin->nodes, origin->node_count, sizeof *origin->nodes);
    copy->files = copy_array(copy, origin->files, origin->file_count, sizeof *origin->files);
    trace->children =
        copy_array(copy, trace->children, trace->child_count, sizeof *trace->children);
    if (copy->views == NULL || copy->nodes == NULL || copy->files == NULL ||
        trace->children == NULL)
        return false;
    copy->view_count = origin->view_count;
    return true;
}

struct unshard_checkpoint *layout_retouch(struct unshard_checkpoint *layout,
                                          const struct retouch *now)
{
    struct unshard_checkpoint *origin = layout->origin != NULL ? layout->origin : layout;
    struct unshard_checkpoint *copy = calloc(1, sizeof *copy);
    if (copy == NULL)
        return NULL;
    memcpy(copy, origin, offsetof(struct unshard_checkpoint, holders));
    copy->arena = (struct arena){0};
    copy->origin = unshard_layout_hold(origin);
    struct trace *trace = copy_array(copy, origin->trace, 1, sizeof *trace);
    copy->trace = trace;
    if (trace != NULL && copy_arrays(copy, trace) && retouch_all(copy, trace, now) &&
        identities_make(copy) == 0) {
        trace->self.rest = look_seen(&(struct look){.name = "", .status = *now->self}).rest;
        return copy;
    }
    if (trace == NULL)
        copy->view_count = 0;
    unshard_checkpoint_close(copy);
    return NULL;
}
