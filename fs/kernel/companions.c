/* SPDX-License-Identifier: MIT */
#include "fs/kernel/companions.h"

#include <stdlib.h>
#include <string.h>

#include "fs/kernel/nodes.h"
#include "fs/kernel/shown.h"
#include "fs/kernel/waiting.h"

struct companions {
    struct waiting_job job;
    struct filesystem *filesystem;
    struct inode *inode; /* that was opened, with a reference */
    uint64_t model;
};

/* The length of the path of the directory that a path is in. */
static size_t above(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] != '/')
        length--;
    return length > 0 ? length - 1 : 0;
}

static int32_t component_of(const struct unshard_place *place)
{
    return unshard_view_component(place->layout, unshard_node(place->layout, place->node)->view);
}

/* Somebody else looks it up, so that the kernel has an inode to store pages into; then it stays
 * attached without our reference. */
static int bring(void *context, const char *path, const struct unshard_place *place)
{
    const struct companions *companions = context;
    struct filesystem *filesystem = companions->filesystem;
    struct inode_table *inodes = filesystem->inodes;
    if (waiting_closed(filesystem->waiting))
        return -1;
    struct inode *inode = inode_table_enter(inodes, path, place);
    if (inode && inode_table_attach(inodes, inode, NULL) == 0) {
        uint32_t view = inode_table_view(inodes, inode);
        inode_table_set_model(inodes, inode, companions->model);
        if (filesystem->look_up && !inode_table_view_known(inodes, view))
            shown_look_up(filesystem, path);
        unshard_engine_prefetch(filesystem->engine, view, companions->model);
    }
    inode_table_put(inodes, inode);
    return 0;
}

/* Another directory of the pipeline: all that is a component's. */
static int bring_directory(void *context, const char *path, struct unshard_checkpoint *layout)
{
    int result = 0;
    (void)path;
    for (uint32_t i = 0; result == 0 && i < unshard_component_count(layout); i++)
        result = shown_of_component(layout, (int32_t)i, bring, context);
    return result;
}

static int is_any(void *context, const char *path, struct unshard_checkpoint *layout)
{
    (void)context, (void)path, (void)layout;
    return 1;
}

/* A pipeline is loaded as a whole, else what is in one directory. */
static uint64_t find_model(struct filesystem *filesystem, const char *directory)
{
    size_t length = strlen(directory);
    bool pipeline = unshard_tree_pipeline(filesystem->tree, directory, is_any, NULL) == 1;
    return nodes_path_hash(directory, pipeline ? above(directory, length) : length);
}

static void work(struct waiting_job *job)
{
    struct companions *companions = (struct companions *)job;
    struct filesystem *filesystem = companions->filesystem;
    struct inode_sight sight;
    if (inode_table_sight(filesystem->inodes, companions->inode, &sight))
        return;
    char *directory = strndup(sight.path, above(sight.path, strlen(sight.path)));
    if (directory) {
        companions->model = find_model(filesystem, directory);
        int result =
            shown_of_component(sight.place.layout, component_of(&sight.place), bring, companions);
        if (result == 0)
            unshard_tree_pipeline(filesystem->tree, directory, bring_directory, companions);
    }
    free(directory);
    inode_sight_release(&sight);
}

static void release(struct waiting_job *job)
{
    struct companions *companions = (struct companions *)job;
    inode_table_put(companions->filesystem->inodes, companions->inode);
    free(companions);
}

uint64_t companions_model(struct filesystem *filesystem, const struct inode *inode)
{
    struct inode_sight sight;
    uint64_t model = inode_table_model(filesystem->inodes, inode);
    if (model != 0 || inode_table_sight(filesystem->inodes, inode, &sight))
        return model;
    model = nodes_path_hash(sight.path, above(sight.path, strlen(sight.path)));
    inode_sight_release(&sight);
    return model;
}

void companions_begin(struct filesystem *filesystem, struct inode *inode, uint32_t view)
{
    if (!filesystem->prefetch_open ||
        !unshard_engine_prefetch(filesystem->engine, view, companions_model(filesystem, inode)))
        return;
    struct companions *companions = calloc(1, sizeof *companions);
    if (!companions)
        return; /* they are prefetched when they are opened */
    inode_table_hold(filesystem->inodes, inode);
    *companions = (struct companions){
        .job = {.work = work, .release = release, .key = WAITING_KEY_LOOK_UP},
        .filesystem = filesystem,
        .inode = inode,
    };
    if (waiting_enter(filesystem->waiting, &companions->job, NULL))
        release(&companions->job);
}
