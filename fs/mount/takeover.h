/* SPDX-License-Identifier: MIT
 *
 * Answering what earlier daemons of the mount have left unanswered, while the loop answers what
 * comes now. Until the last of their threads has gone one of them may come out of the kernel with a
 * request, so it is looked for again and again (fs/kernel/journal.h); then the kernel is asked what
 * it still knows (inode_table_ask), and what was attached is attached again.
 *
 * One thread, which ends when that is done. */
#ifndef FS_MOUNT_TAKEOVER_H
#define FS_MOUNT_TAKEOVER_H

#include <pthread.h>
#include <stdbool.h>

#include "fs/kernel/filesystem.h"
#include "fs/mount/succession.h"

struct takeover {
    struct filesystem *filesystem;
    int old[SUCCESSION_OLD]; /* pidfds; -1: none */
    bool sends_again;        /* the kernel can, and may be asked to */
    int stop;                /* an eventfd */
    pthread_t thread;
    bool runs;
};

/* Begins to answer; the session is adopted, the engine runs. old: taken over. 0 or a negative
 * errno. */
int takeover_start(struct takeover *takeover, struct filesystem *filesystem,
                   const int old[SUCCESSION_OLD]);
/* Waits for the end of the thread, which comes soon. Does nothing when it was never started. */
void takeover_stop(struct takeover *takeover);

#endif
