/* SPDX-License-Identifier: MIT
 *
 * Letting another program, mostly a newer version of this one, go on with a mount that is in use.
 *
 * First it is rehearsed: the program is started with the arguments of the mount, a copy of what is
 * kept, and no device, and does all that a successor does before it answers a request
 * (continuing.h). So what it could not take over is found while this daemon still serves, and the
 * mount stays as it is: another layout of the keep, an option that is gone, another agreement with
 * the kernel, a file that is open and that it would not show as it was.
 *
 * Then whoever has asked is answered, since a request that is left unanswered would be carried out
 * once more by the successor. Then the supervisor is told, and this daemon ends as if it had been
 * killed, but for stores, which it lets end, and starts none: a reader waits for what the start of
 * a process takes. */
#ifndef FS_MOUNT_UPGRADE_H
#define FS_MOUNT_UPGRADE_H

#include <stddef.h>

#include "fs/kernel/filesystem.h"
#include "fs/mount/start.h"
#include "fs/mount/supervised.h"

struct upgrade {
    struct filesystem *filesystem;
    struct supervised *supervised;
    const struct start *start;
    int program; /* that has been rehearsed; -1: none. Of the thread that serves such requests */
};

/* All three are the caller's. Has the filesystem's requests for an upgrade come here. */
void upgrade_init(struct upgrade *upgrade, struct filesystem *filesystem,
                  struct supervised *supervised, const struct start *start);
/* When no request is served any more, or none was. */
void upgrade_release(struct upgrade *upgrade);

#endif
