/* SPDX-License-Identifier: MIT */
#include "fs/mount/mount_run.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/cli/error_json.h"
#include "fs/kernel/journal.h"
#include "fs/mount/life.h"

int mount_run_know_groups(struct mount_run *run)
{
    struct known_groups *groups = &run->filesystem.groups;
    int count = getgroups(0, NULL);
    run->groups = count > 0 ? calloc((size_t)count, sizeof *run->groups) : NULL;
    if (!run->groups)
        return count > 0 ? -ENOMEM : 0;
    count = getgroups(count, run->groups);
    *groups = (struct known_groups){
        .first = getegid(), .others = run->groups, .count = count > 0 ? (unsigned)count : 0};
    return 0;
}

/* What covers a directory that all could read is for all of them, too, if that is not refused. */
static bool is_for_all(const struct mount_run *run)
{
    return run->options.over && !run->options.allow_root && geteuid() == 0;
}

struct session_options mount_run_session_options(const struct mount_run *run)
{
    return (struct session_options){
        .mountpoint = run->given ? run->given_path : run->mountpoint,
        .fsname = run->options.fsname ? run->options.fsname : run->source,
        .allow_other = run->options.allow_other || is_for_all(run),
        .allow_root = run->options.allow_root,
    };
}

static void crashed(void *context)
{
    const struct mount_run *run = context;
    journal_crashed(run->filesystem.journal);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    supervised_crashing(&run->supervised); /* else a report is written first, while others serve */
#endif
}

void mount_run_note_crashes(struct mount_run *run)
{
    life_note_crashes(run->supervised.life, run->succession.generation, crashed, run);
}

int mount_run_open_session(struct mount_run *run)
{
    struct session_options options = mount_run_session_options(run);
    return session_open(&run->filesystem, &options, &run->error);
}

void mount_run_end_reports(struct mount_run *run)
{
    reporter_stop(run->reporter);
    run->reporter = NULL;
}

/* Tells whoever started the command why there is no mount. */
void mount_run_report(struct mount_run *run)
{
    char *json = run->options.json ? error_json_object(&run->error) : NULL;
    daemon_failed(&run->link, json ? json : run->error.message);
    free(json);
}
