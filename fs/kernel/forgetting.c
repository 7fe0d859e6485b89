/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/forgetting.h"

#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/inode_table.h"
#include "fs/kernel/waiting.h"

struct forgetting {
    struct waiting_job job;
    struct filesystem *filesystem;
    char *path;
    struct unshard_place place; /* held */
};

/* May wait for somebody who looks a name of the directory up. Who did that himself knows what is
 * there now, and so does a kernel that has nothing of the name. */
static int forget(void *context, uint64_t directory, const char *name)
{
    const struct forgetting *forgetting = context;
    if (waiting_closed(forgetting->filesystem->waiting))
        return -1;
    fuse_lowlevel_notify_inval_entry(forgetting->filesystem->session, directory, name,
                                     strlen(name));
    return 0;
}

static void work(struct waiting_job *job)
{
    struct forgetting *forgetting = (struct forgetting *)job;
    inode_table_superseded(forgetting->filesystem->inodes, forgetting->path, &forgetting->place,
                           forget, forgetting);
}

static void release(struct waiting_job *job)
{
    struct forgetting *forgetting = (struct forgetting *)job;
    unshard_layout_release(forgetting->place.layout);
    free(forgetting->path);
    free(forgetting);
}

void forgetting_seen(struct filesystem *filesystem, const char *path,
                     const struct unshard_place *place)
{
    if (!inode_table_is_news(filesystem->inodes, path, place->layout))
        return;
    struct forgetting *forgetting = calloc(1, sizeof *forgetting);
    if (!forgetting)
        return; /* it is forgotten when somebody asks for it, or when memory is short */
    *forgetting = (struct forgetting){
        .job = {.work = work, .release = release, .key = WAITING_KEY_FORGET},
        .filesystem = filesystem,
        .path = strdup(path),
        .place = {.layout = unshard_layout_hold(place->layout), .node = place->node},
    };
    if (!forgetting->path || waiting_enter(filesystem->waiting, &forgetting->job, NULL))
        release(&forgetting->job);
}
