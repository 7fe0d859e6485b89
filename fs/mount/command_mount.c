/* SPDX-License-Identifier: MIT */
#include "fs/mount/command_mount.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "fs/cli/options.h"
#include "fs/host/claim.h"
#include "fs/host/close_others.h"
#include "fs/host/daemon.h"
#include "fs/host/descriptors.h"
#include "fs/host/log.h"
#include "fs/host/log_writer.h"
#include "fs/host/mounted_fd.h"
#include "fs/host/mountpoint.h"
#include "fs/host/privileges.h"
#include "fs/kernel/directories.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/journal.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/session.h"
#include "fs/kernel/status_snapshots.h"
#include "fs/kernel/waiting.h"
#include "fs/kernel/whole.h"
#include "fs/mount/continuing.h"
#include "fs/mount/kept_mount.h"
#include "fs/mount/mount_place.h"
#include "fs/mount/mount_run.h"
#include "fs/mount/mount_source.h"
#include "fs/mount/serving.h"
#include "fs/mount/supervisor.h"

static int prepare_reports(struct mount_run *run)
{
    struct mount_options *options = &run->options;
    int result =
        mountpoint_outside_file(&options->status_file, run->mountpoint, run->source, &run->error);
    if (!result)
        result = mountpoint_outside_file(&options->metrics_file, run->mountpoint, run->source,
                                         &run->error);
    if (result)
        return result;
    result = reporter_prepare(options->status_file, options->metrics_file, &run->reporter);
    return result ? unshard_error_set(&run->error, "reporter", -result, "cannot fork: %s",
                                      strerror(-result))
                  : 0;
}

/* What is to outlive this process. */
static int make_keep(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    int result = unshard_keep_new(life_area_bytes(), &filesystem->keep, &run->error);
    if (result)
        return result;
    filesystem->greeting.keep = filesystem->keep;
    filesystem->journal = journal_new(life_journal_area(filesystem->keep), 0);
    if (!filesystem->journal)
        return unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    directories_begin(0);
    status_snapshots_begin(filesystem->keep, 0);
    return 0;
}

static int prepare(struct mount_run *run)
{
    int result = run->again ? continuing_begin(run) : make_keep(run);
    if (!result && !run->again)
        result = mount_place_resolve(run);
    if (!result)
        result = prepare_reports(run);
    return result ? result : mount_source_open(run);
}

/* `unshard mount --prepare`: makes the mount, and leaves it to a daemon that is yet to come. */
static int prepare_for_another(struct mount_run *run)
{
    int result = mount_place_resolve(run);
    if (!result && run->waits)
        fprintf(stderr, "unshard: %s: mounted, and left to a daemon that goes on with it\n",
                run->mountpoint);
    if (!result && !run->waits)
        result = mount_run_open_session(run);
    if (result || run->waits)
        return result;
    result = kept_mount_prepare(session_descriptor(&run->filesystem), &run->error);
    if (result)
        session_unmount(&run->filesystem);
    else
        _exit(0); /* the session would unmount */
    session_close(&run->filesystem);
    return result;
}

static void release(struct mount_run *run)
{
    claim_release(run->claim);
    mount_run_end_reports(run);
    status_snapshots_end();
    directories_end();
    if (waiting_close(run->filesystem.waiting, 0) == 0) /* left when there was no engine */
        waiting_room_free(run->filesystem.waiting);
    whole_free(run->filesystem.whole);
    inode_table_free(run->filesystem.inodes);
    retriever_free(run->filesystem.retriever);
    unshard_tree_close(run->filesystem.tree);
    journal_free(run->filesystem.journal);
    unshard_keep_close(run->filesystem.keep);
    free(run->directory);
    free(run->groups);
    free(run->source);
    free(run->mountpoint);
    if (run->filesystem.initialised_fd >= 0)
        close(run->filesystem.initialised_fd);
    options_free(&run->options);
}

/* A daemon that is not there yet is told to open its log again: that waits until it is. */
static void hold_hangups(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* In the process that serves: to the end of the mount. */
static int run_daemon(struct mount_run *run)
{
    if (run->succession.role == ROLE_REHEARSAL) {
        privileges_drop();
        return continuing_rehearse(run) ? 1 : 0;
    }
    int result = log_open(run->options.log_path, !run->options.foreground);
    if (result)
        unshard_error_set(&run->error, "log", -result, "%s: cannot open the log: %s",
                          run->options.log_path ? run->options.log_path : "syslog",
                          log_open_reason(result));
    privileges_drop();
    if (!result)
        result = prepare(run);
    if (!result)
        result = serving_run(run);
    if (result && run->again)
        continuing_failed(run);
    else if (result)
        mount_run_report(run);
    log_writer_end();
    return result ? 1 : 0;
}

/* In the foreground the process that was started outlives those that serve, and ends as the last of
 * them does. Until it knows what it is to outlive, the one below dies with it. The latter's number,
 * or 0 in that process; run->talk leads to the other one. Or a negative errno. */
static pid_t begin_below(struct mount_run *run)
{
    int ends[2], result = succession_pair(ends);
    if (result)
        return result;
    fflush(NULL);
    pid_t self = getpid(), child = fork();
    if (child < 0)
        return -errno;
    run->talk = child > 0 ? ends[0] : ends[1];
    if (child > 0) {
        close_others(STDERR_FILENO + 1, run->talk, -1);
        return child;
    }
    close(ends[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self)
        _exit(1);
    return 0;
}

/* A manager that gives us what it kept wants the mount to go on. true: to its end, or it cannot;
 * then this process has to end, too, so that the manager lets go of it: *status. */
static bool run_kept(struct mount_run *run, struct kept_mount *kept, int *status)
{
    const struct mount_options *options = &run->options;
    if (!kept_mount_was_served(kept))
        return false;
    int result = kept_mount_find(kept, options->source, options->mountpoint, &run->error);
    if (!result && kept->prepared < 0) {
        *status = supervisor_resume(kept->handed);
        return true;
    }
    bool is_served = result == -EBUSY;
    if (!is_served)
        kept_mount_drop(kept);
    if (kept->prepared >= 0)
        return false;
    char why[sizeof run->error.message];
    snprintf(why, sizeof why, "%s", run->error.message);
    unshard_error_set(&run->error, "kept", -result,
                      "what the service manager keeps of a mount cannot be gone on with%s: %s",
                      is_served ? "" : ", and is given up; started once more this mounts anew",
                      why);
    mount_run_report(run);
    *status = 1;
    return true;
}

/* In the process that was started. */
static int run_in_foreground(struct mount_run *run)
{
    int status;
    struct kept_mount kept = kept_mount_take();
    if (run_kept(run, &kept, &status))
        return status;
    run->prepared = kept.prepared;
    run->bound = kept.keeps;
    pid_t daemon = begin_below(run);
    if (daemon < 0) {
        fprintf(stderr, "unshard: cannot fork: %s\n", strerror(-daemon));
        return 1;
    }
    if (daemon > 0)
        return supervisor_run(run->talk, daemon, kept.keeps);
    run->terminal = shutdown_has_terminal();
    return run_daemon(run);
}

static int run_mount(struct mount_run *run)
{
    if (run->options.prepare) {
        int result = prepare_for_another(run);
        if (result)
            fprintf(stderr, "unshard: %s\n", run->error.message);
        return result ? 1 : 0;
    }
    if (run->again) {
        shutdown_block_signals(); /* what ends a mount that is there waits until this serves it */
        run->link.json = false;
        return run_daemon(run);
    }
    run->link.json = run->options.json;
    if (run->options.foreground)
        return run_in_foreground(run);
    int result = daemon_begin(&run->link, false, mounted_fd_parse(run->options.mountpoint));
    if (result) {
        fprintf(stderr, "unshard: cannot fork: %s\n", strerror(-result));
        return 1;
    }
    hold_hangups();
    return run_daemon(run);
}

static struct mount_run *new_run(void)
{
    struct mount_run *run = calloc(1, sizeof *run);
    if (!run) {
        fprintf(stderr, "unshard: out of memory\n");
        return NULL;
    }
    run->link.fd = run->claim = run->root = run->user_namespace = run->talk = run->prepared = -1;
    run->filesystem.initialised_fd = -1;
    return run;
}

/* For who goes on with the mount: in this directory, with these arguments. */
static void note_arguments(struct mount_run *run, int argc, char **argv)
{
    run->directory = getcwd(NULL, 0);
    bool is_command = strcmp(program_invocation_short_name, "unshard") == 0; /* no mount.unshard */
    run->start.argv[run->start.argc++] = is_command ? program_invocation_name : "unshard";
    for (int i = 0; i < argc && run->start.argc < START_ARGUMENTS; i++)
        run->start.argv[run->start.argc++] = argv[i];
}

int command_mount(int argc, char **argv)
{
    struct mount_run *run = new_run();
    if (!run)
        return 1;
    run->again = succession_take(&run->succession);
    int parsed = options_parse_mount(argc, argv, &run->options);
    if (parsed) {
        free(run);
        return parsed > 0 ? 0 : 2;
    }
    note_arguments(run, argc, argv);
    int status = run_mount(run);
    release(run);
    free(run);
    return status;
}

/* ---- for a command in a namespace of its own ---------------------------------------------------
 */

/* Blocks until the command has mounted. */
static int receive_mount(struct mount_run *run)
{
    int fds[DESCRIPTORS_MOST];
    struct private_mount mount;
    int result = descriptors_receive(run->link.fd, fds, &mount, sizeof mount);
    if (result)
        return result;
    snprintf(run->given_path, sizeof run->given_path, "/dev/fd/%d", fds[0]);
    run->given = true;
    run->connection = mount.connection;
    run->root = fds[1];
    run->user_namespace = fds[2];
    run->first_group = mount.first_group_alone;
    return run->first_group ? mount_run_know_groups(run) : 0;
}

bool mount_goes_on(void)
{
    return succession_role() != ROLE_NONE;
}

int mount_privately(struct mount_options *options, const struct private_view *view, int link)
{
    struct mount_run *run = new_run();
    if (!run)
        return 1;
    run->options = *options;
    run->link.fd = link;
    run->private = true;
    run->view = *view;
    unsetenv("NOTIFY_SOCKET"); /* a service manager waits for the word of the command */
    hold_hangups();
    note_arguments(run, view->argc, view->argv);
    run->again = succession_take(&run->succession);
    int status = !run->again && receive_mount(run) ? 1 : run_daemon(run);
    mount_place_let_go(run);
    release(run);
    free(run);
    return status;
}
