/* SPDX-License-Identifier: MIT */
#include "fs/kernel/companions.h"

#include <stdlib.h>
#include <string.h>

#include "fs/kernel/shown.h"
#include "fs/kernel/waiting.h"

struct companions {
    struct waiting_job job;
    struct filesystem *filesystem;
    struct inode *inode; /* that was opened, with a reference */
};

static int32_t component_of(const struct unshard_place *place)
{
    return unshard_view_component(place->layout, unshard_node(place->layout, place->node)->view);
}

/* Somebody else looks it up, so that the kernel has an inode to store pages into; then it stays
 * attached without our reference. */
static int bring(void *context, const char *path, const struct unshard_place *place)
{
    struct filesystem *filesystem = context;
    struct inode_table *inodes = filesystem->inodes;
    if (waiting_closed(filesystem->waiting))
        return -1;
    struct inode *inode = inode_table_enter(inodes, path, place);
    if (inode && inode_table_first_use(inodes, inode) &&
        inode_table_attach(inodes, inode, NULL) == 0) {
        if (filesystem->look_up)
            filesystem->look_up(filesystem->look_up_context, path);
        unshard_engine_prefetch(filesystem->engine, inode_table_view(inodes, inode));
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

static void work(struct waiting_job *job)
{
    const struct companions *companions = (struct companions *)job;
    struct filesystem *filesystem = companions->filesystem;
    struct inode_sight sight;
    if (inode_table_sight(filesystem->inodes, companions->inode, &sight))
        return;
    int result = shown_of_component(sight.place.layout, component_of(&sight.place), bring,
                                    filesystem);
    char *end = strrchr(sight.path, '/');
    *(end ? end : sight.path) = '\0'; /* its directory */
    if (result == 0)
        unshard_tree_pipeline(filesystem->tree, sight.path, bring_directory, filesystem);
    inode_sight_release(&sight);
}

static void release(struct waiting_job *job)
{
    struct companions *companions = (struct companions *)job;
    inode_table_put(companions->filesystem->inodes, companions->inode);
    free(companions);
}

static bool is_of_component(struct filesystem *filesystem, const struct inode *inode)
{
    struct inode_sight sight;
    if (inode_table_sight(filesystem->inodes, inode, &sight))
        return false;
    bool is = component_of(&sight.place) >= 0;
    inode_sight_release(&sight);
    return is;
}

void companions_begin(struct filesystem *filesystem, struct inode *inode, uint32_t view)
{
    if (!filesystem->prefetch_open || !inode_table_first_use(filesystem->inodes, inode) ||
        !is_of_component(filesystem, inode))
        return;
    unshard_engine_prefetch(filesystem->engine, view);
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
