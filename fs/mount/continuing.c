/* SPDX-License-Identifier: MIT */
#include "fs/mount/continuing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/host/log_writer.h"
#include "fs/kernel/directories.h"
#include "fs/kernel/errands.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/journal.h"
#include "fs/kernel/session.h"
#include "fs/kernel/status_snapshots.h"
#include "fs/mount/life.h"
#include "fs/mount/mount_source.h"

static int no_memory(struct mount_run *run)
{
    return unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
}

static int take_keep(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    const struct succession *succession = &run->succession;
    bool rehearsal = succession->role == ROLE_REHEARSAL;
    int result = (rehearsal ? unshard_keep_rehearse : unshard_keep_take)(
        succession->handed[HANDED_KEEP], life_area_bytes(), &filesystem->keep, &run->error);
    if (!result && !rehearsal)
        result = supervised_continue(&run->supervised, filesystem->keep, succession, &run->error);
    if (result)
        return result;
    filesystem->greeting.keep = filesystem->keep;
    filesystem->generation = succession->generation;
    filesystem->journal = journal_new(life_journal_area(filesystem->keep), succession->generation);
    if (!filesystem->journal)
        return no_memory(run);
    if (!rehearsal)
        mount_run_note_crashes(run);
    directories_begin(succession->generation);
    status_snapshots_begin(filesystem->keep, succession->generation);
    return 0;
}

/* What was found at the start, whatever its words would say now. */
static int take_start(struct mount_run *run)
{
    struct start *start = &run->start;
    int result = start_read(run->filesystem.keep, start);
    if (result)
        return unshard_error_set(&run->error, "keep-layout", -result,
                                 "how the mount was started is not to be found");
    run->given = start->given;
    run->visible = start->visible;
    run->private = start->private;
    run->first_group = start->first_group;
    run->terminal = start->terminal;
    run->bound = start->bound;
    run->connection = start->connection;
    run->source = strdup(start->source);
    run->mountpoint = strdup(start->mountpoint);
    run->view.path = start->shown;
    if (run->given)
        snprintf(run->given_path, sizeof run->given_path, "/dev/fd/%d",
                 run->succession.handed[HANDED_DEVICE]);
    return run->source && run->mountpoint ? 0 : no_memory(run);
}

/* For the status. */
static void note_restarts(struct mount_run *run)
{
    const struct life *life = run->supervised.life;
    struct filesystem *filesystem = &run->filesystem;
    filesystem->restarts = life->restarts;
    filesystem->restart_time = life->last_ns / 1000000000;
    filesystem->restart_reason = life_end_name((enum life_end)life->last_end);
}

int continuing_begin(struct mount_run *run)
{
    prctl(PR_SET_NAME, "unshard");
    int result = take_keep(run);
    if (!result && run->succession.role == ROLE_DAEMON)
        note_restarts(run);
    if (!result)
        result = take_start(run);
    if (!result && run->bound && run->succession.role == ROLE_DAEMON)
        supervised_bind(&run->supervised);
    if (!result && run->first_group && mount_run_know_groups(run))
        result = no_memory(run);
    if (!result && chdir(run->start.directory))
        errno = 0; /* what is relative in the options is not found */
    return result;
}

int continuing_adopt(struct mount_run *run)
{
    struct session_options options = mount_run_session_options(run);
    if (chdir("/"))
        errno = 0; /* stays where it is, which is allowed */
    return session_adopt(&run->filesystem, &options, run->succession.handed[HANDED_DEVICE],
                         &run->error);
}

/* What is open would be read on. */
static int check_file(void *context, struct inode *inode)
{
    struct mount_run *run = context;
    struct inode_sight sight;
    if (!inode_table_is_open(run->filesystem.inodes, inode))
        return 0;
    int result = errand_find_again(&run->filesystem, inode);
    if (!result || inode_table_sight(run->filesystem.inodes, inode, &sight))
        return result;
    unshard_error_set(&run->error, "takeover", -result,
                      "%s is open, and would not be found as it was (%s); once it is closed it is "
                      "no reason any more",
                      sight.path, strerror(-result));
    inode_sight_release(&sight);
    return result;
}

int continuing_rehearse(struct mount_run *run)
{
    run->link.fd = run->succession.talk;
    int result = continuing_begin(run);
    if (!result)
        result = mount_source_open(run);
    if (!result)
        result = continuing_adopt(run);
    if (!result)
        result = inode_table_each_inherited(run->filesystem.inodes, check_file, run);
    if (result)
        mount_run_report(run);
    else
        daemon_ready(&run->link);
    if (run->filesystem.session)
        session_close(&run->filesystem);
    return result;
}

_Noreturn void continuing_failed(struct mount_run *run)
{
    static const char *const hopeless[] = {"keep-layout", "takeover", "no-source"};
    bool is_hopeless = false;
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++)
        is_hopeless |= strcmp(run->error.code, hopeless[i]) == 0;
    log_line(LOG_ERR, "mount", "event=not-taken-over code=%s message=\"%s\"", run->error.code,
             run->error.message);
    supervised_failing(&run->supervised, is_hopeless);
    log_writer_end();
    _exit(1); /* there may be threads that use everything, and the mount is the next one's */
}
