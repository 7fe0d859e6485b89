/* SPDX-License-Identifier: MIT */
#include "fs/kernel/reattaching.h"

#include <stdlib.h>

#include "fs/kernel/companions.h"
#include "fs/kernel/errands.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/waiting.h"

struct reattaching {
    struct waiting_job job;
    struct filesystem *filesystem;
};

static int attach(void *context, struct inode *inode)
{
    struct filesystem *filesystem = context;
    if (waiting_closed(filesystem->waiting))
        return -1;
    if (errand_attach_now(filesystem, inode) == 0)
        companions_begin(filesystem, inode, inode_table_view(filesystem->inodes, inode));
    return 0;
}

static void work(struct waiting_job *job)
{
    struct filesystem *filesystem = ((struct reattaching *)job)->filesystem;
    inode_table_each_inherited(filesystem->inodes, attach, filesystem);
}

static void release(struct waiting_job *job)
{
    free(job);
}

void reattaching_begin(struct filesystem *filesystem)
{
    struct reattaching *all = calloc(1, sizeof *all);
    if (!all)
        return; /* they are attached when they are read */
    *all = (struct reattaching){
        .job = {.work = work, .release = release, .key = WAITING_KEY_LOOK_UP},
        .filesystem = filesystem,
    };
    if (waiting_enter(filesystem->waiting, &all->job, NULL))
        free(all);
}
