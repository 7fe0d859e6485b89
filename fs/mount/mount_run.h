/* SPDX-License-Identifier: MIT
 * One mount in one process: what the command that makes it (command_mount.c) and the process that
 * goes on with it (continuing.h) share. */
#ifndef FS_MOUNT_MOUNT_RUN_H
#define FS_MOUNT_MOUNT_RUN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fs/cli/options.h"
#include "fs/host/daemon.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/session.h"
#include "fs/mount/private_mount.h"
#include "fs/mount/prober.h"
#include "fs/mount/reporter.h"
#include "fs/mount/shutdown.h"
#include "fs/mount/start.h"
#include "fs/mount/succession.h"
#include "fs/mount/supervised.h"
#include "fs/mount/takeover.h"
#include "fs/mount/upgrade.h"

struct mount_run {
    struct mount_options options;
    struct daemon_link link;
    char *source, *mountpoint; /* canonical; the latter as given when it cannot be seen */
    char *directory;           /* in which the command was given */
    bool given;                /* somebody else has mounted and gave us a descriptor */
    char given_path[24];       /* "/dev/fd/N" then */
    int prepared;              /* the device of a mount that --prepare has made; -1: none */
    bool waits;                /* with --prepare: one that was served is there, and stays */
    int claim;                 /* of the mount point, until the mount stands; -1: none */
    bool visible;              /* the mount is in our mount namespace */
    bool private; /* it is in that of a command, which we serve for as long as it runs */
    struct private_view view; /* then */
    bool first_group;         /* then: that knows this user's first group alone */
    gid_t *groups;            /* what filesystem.groups points to */
    int root, user_namespace; /* then: of the mount, until the prober has them; -1: none */
    bool bound;               /* this process does not outlive its supervisor */
    bool terminal;            /* in the foreground of one, which may be gone by now */
    atomic_bool loop_ended;   /* requests are answered no more */
    struct filesystem filesystem;
    struct start start;           /* as it is kept */
    bool again;                   /* an earlier process has made the mount */
    struct succession succession; /* then */
    struct takeover takeover;
    int talk; /* in the foreground: to the process that was started, which supervises; else -1 */
    struct supervised supervised;
    struct upgrade upgrade;
    struct prober prober;
    struct shutdown shutdown;
    struct reporter *reporter;
    unsigned connection; /* its number, which is the minor of the mount's device */
    pthread_t ready_thread;
    bool ready_thread_runs;
    struct unshard_error
        error; /* why the mount did not come up; of the ready thread until joined */
    bool failed;
};

/* Those that the operations show: of the caller. 0 or -ENOMEM. */
int mount_run_know_groups(struct mount_run *run);
/* Its strings are run's. */
struct session_options mount_run_session_options(const struct mount_run *run);
/* Once the journal is there and the daemon lives (life.h): its crash is noted in both. */
void mount_run_note_crashes(struct mount_run *run);
/* Mounts. 0 or a negative errno with run->error. */
int mount_run_open_session(struct mount_run *run);
void mount_run_end_reports(struct mount_run *run);
/* Tells whoever started the command why there is no mount. */
void mount_run_report(struct mount_run *run);

#endif
