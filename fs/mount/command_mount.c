/* SPDX-License-Identifier: MIT */
#include "fs/mount/command_mount.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/cli/error_json.h"
#include "fs/cli/options.h"
#include "fs/host/claim.h"
#include "fs/host/daemon.h"
#include "fs/host/descriptors.h"
#include "fs/host/log.h"
#include "fs/host/log_writer.h"
#include "fs/host/mounted_fd.h"
#include "fs/host/mountpoint.h"
#include "fs/host/privileges.h"
#include "fs/host/service_manager.h"
#include "fs/kernel/control.h"
#include "fs/kernel/directories.h"
#include "fs/kernel/filesystem.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/publisher.h"
#include "fs/kernel/retriever.h"
#include "fs/kernel/session.h"
#include "fs/kernel/status_files.h"
#include "fs/kernel/waiting.h"
#include "fs/kernel/whole.h"
#include "fs/mount/monitor.h"
#include "fs/mount/private_mount.h"
#include "fs/mount/prober.h"
#include "fs/mount/reporter.h"
#include "fs/mount/shutdown.h"

#define READY_TIMEOUT_MS 30000

/* Everything that one `unshard mount` has. */
struct mount_run {
    struct mount_options options;
    struct daemon_link link;
    char *source, *mountpoint; /* canonical; the latter as given when it cannot be seen */
    bool given;                /* somebody else has mounted and gave us a descriptor */
    char given_path[24];       /* "/dev/fd/N" then */
    int claim;                 /* of the mount point, until the mount stands; -1: none */
    bool visible;              /* the mount is in our mount namespace */
    bool private; /* it is in that of a command, which we serve for as long as it runs */
    struct private_view view; /* then */
    gid_t *groups;            /* what filesystem.groups points to */
    int root, user_namespace; /* then: of the mount, until the prober has them; -1: none */
    bool terminal;            /* in the foreground of one, which may be gone by now */
    atomic_bool loop_ended;   /* requests are answered no more */
    struct filesystem filesystem;
    struct monitor monitor;
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

/* `.unshard` itself tells nothing, and its files tell each user what is for him. */
static void set_status_attributes(struct filesystem *filesystem,
                                  const struct unshard_checkpoint *root)
{
    const struct unshard_node *top = unshard_node(root, 0);
    struct stat *directory = &filesystem->status_directory, *file = &filesystem->status_file;
    directory->st_mode = S_IFDIR | 0555;
    directory->st_uid = top->uid;
    directory->st_gid = top->gid;
    file->st_mode = S_IFREG | 0444;
    file->st_uid = geteuid();
    file->st_gid = getegid();
}

/* Without a word about it, one model is prefetched as a whole, of many what is opened. */
static void choose_prefetch(struct mount_run *run, bool one_model)
{
    struct unshard_fetch_options *fetch = &run->options.fetch;
    if (!run->options.prefetch_said)
        fetch->prefetch = one_model ? UNSHARD_PREFETCH_ALL : UNSHARD_PREFETCH_OPEN;
    run->filesystem.prefetch_open = fetch->prefetch == UNSHARD_PREFETCH_OPEN;
}

static int look_at_source(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    struct unshard_place root;
    bool one_model = unshard_tree_is_one_model(filesystem->tree);
    choose_prefetch(run, one_model);
    int result = unshard_tree_look(filesystem->tree, "", &root, &run->error);
    if (result)
        return result;
    filesystem->inodes = inode_table_new(root.layout);
    if (!filesystem->inodes)
        result = unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    if (!result && (one_model || run->options.fetch.prefetch == UNSHARD_PREFETCH_ALL))
        result = whole_survey(filesystem->tree, &filesystem->whole, &run->error);
    if (!result)
        set_status_attributes(filesystem, root.layout);
    unshard_layout_release(root.layout);
    return result;
}

static int open_source(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    filesystem->retriever = retriever_new();
    int result = unshard_tree_open(run->source, &run->options.view, &filesystem->tree, &run->error);
    return result ? result : look_at_source(run);
}

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

/* Mounted already. */
static int take_given_mount(struct mount_run *run, int fd)
{
    struct mount_entry entry;
    int result = mounted_fd_find(fd, &entry, &run->error);
    if (result)
        return result;
    run->given = true;
    snprintf(run->given_path, sizeof run->given_path, "/dev/fd/%d", fd);
    run->visible = entry.path[0] != '\0';
    run->connection = entry.minor_number;
    run->mountpoint = strdup(run->visible ? entry.path : run->options.mountpoint);
    if (!run->mountpoint)
        return unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    if (run->visible)
        return 0;
    run->filesystem.initialised_fd = eventfd(0, EFD_CLOEXEC);
    return run->filesystem.initialised_fd < 0
               ? unshard_error_set(&run->error, "mount", errno, "eventfd: %s", strerror(errno))
               : 0;
}

/* Mounted by the command that wants it, where we cannot see it. */
static int take_private_mount(struct mount_run *run)
{
    run->mountpoint = strdup(run->given_path);
    return run->mountpoint ? 0
                           : unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
}

/* What is mounted already covers the source, and nobody answers it yet. */
static int refuse_over(struct mount_run *run)
{
    return unshard_error_set(&run->error, "mountpoint", EINVAL,
                             "over needs a daemon that mounts by itself: neither --prepare nor "
                             "/dev/fd/N can be used with it");
}

static int prepare_mountpoint(struct mount_run *run)
{
    if (run->private)
        return take_private_mount(run);
    int fd = mounted_fd_parse(run->options.mountpoint);
    if (fd < 0 && !run->options.prepare)
        fd = service_manager_given();
    if (run->options.over && (fd >= 0 || run->options.prepare))
        return refuse_over(run);
    if (fd >= 0)
        return take_given_mount(run, fd);
    run->visible = true;
    int result = mountpoint_resolve(run->options.mountpoint, &run->mountpoint, &run->error);
    return result ? result
                  : mountpoint_prepare(run->mountpoint, run->source, run->options.over, &run->claim,
                                       &run->error);
}

static int resolve(struct mount_run *run)
{
    int result = mountpoint_resolve(run->options.source, &run->source, &run->error);
    return result ? result : prepare_mountpoint(run);
}

static int prepare(struct mount_run *run)
{
    int result = resolve(run);
    if (!result)
        result = prepare_reports(run);
    return result ? result : open_source(run);
}

/* What lies on top is ours, since the place is claimed. */
static int connection_on_top(const char *path, unsigned *connection)
{
    int fd = mountpoint_open(path);
    int result = fd < 0 ? fd : mountpoint_connection(fd, connection);
    if (fd >= 0)
        close(fd);
    return result;
}

static int find_connection(struct mount_run *run)
{
    int result = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", session_descriptor(&run->filesystem));
    if (!run->given)
        run->connection = mounted_fd_connection(path);
    if (!run->given && !run->connection)
        result = connection_on_top(run->mountpoint, &run->connection);
    if (result)
        return unshard_error_set(&run->error, "mount", -result, "%s: cannot find the new mount: %s",
                                 run->mountpoint, strerror(-result));
    run->filesystem.connection = run->connection;
    run->filesystem.mountpoint = run->private   ? run->view.path
                                 : run->visible ? run->mountpoint
                                                : NULL;
    if (run->visible && run->connection)
        result = mountpoint_check_alone(run->mountpoint, run->source, run->connection, &run->error);
    if (run->options.over)
        unshard_tree_cover(run->filesystem.tree, makedev(0, run->connection));
    claim_release(run->claim);
    run->claim = -1;
    return result;
}

/* What we hold of a command's mount keeps that from ending with the command. */
static void let_go_of_mount(struct mount_run *run)
{
    if (run->root >= 0)
        close(run->root);
    if (run->user_namespace >= 0)
        close(run->user_namespace);
    run->root = run->user_namespace = -1;
}

static void look_up(void *context, const char *path)
{
    prober_look_up(context, path);
}

/* Forks the helpers. They must come from the main thread, before there are others. */
static int start_helpers(struct mount_run *run)
{
    int result = find_connection(run);
    if (!result)
        result = monitor_start(&run->monitor, run->mountpoint, run->connection,
                               session_descriptor(&run->filesystem), &run->error);
    struct prober_place place = {.path = run->visible ? run->mountpoint : NULL,
                                 .root = run->root,
                                 .user_namespace = run->user_namespace};
    /* In a command's namespace nobody of ours may stay: it would live as long as that. */
    bool stays = run->visible && (run->options.fetch.prefetch == UNSHARD_PREFETCH_OPEN ||
                                  run->options.fetch.prefetch == UNSHARD_PREFETCH_ALL);
    if (!result && (run->visible || run->private))
        result = prober_start(&run->prober, run->filesystem.whole, stays, &place, &run->error);
    if (!result && stays) {
        run->filesystem.look_up = look_up;
        run->filesystem.look_up_context = &run->prober;
    }
    let_go_of_mount(run);
    return result;
}

/* A mount that we cannot see works when the kernel has greeted us. */
static int wait_for_kernel(struct mount_run *run)
{
    struct pollfd entry = {.fd = run->filesystem.initialised_fd, .events = POLLIN};
    if (poll(&entry, 1, READY_TIMEOUT_MS) > 0 && !run->loop_ended)
        return 0;
    return unshard_error_set(&run->error, "mount", ENOTCONN,
                             "%s: nothing is mounted with this descriptor, or not any more",
                             run->mountpoint);
}

static int prove(struct mount_run *run)
{
    if (!run->visible && !run->private)
        return wait_for_kernel(run);
    int result = prober_run(&run->prober, READY_TIMEOUT_MS, run->link.fd, &run->error);
    if (!result && !run->prober.stays)
        prober_reap(&run->prober);
    return result;
}

/* Where it is mounted, for a person. */
static const char *place_of(const struct mount_run *run)
{
    return run->private ? run->view.path : run->mountpoint;
}

static void *announce(void *argument)
{
    struct mount_run *run = argument;
    if (prove(run)) {
        /* Stopped or unmounted so soon: an answer to what the user did, in the foreground. For a
         * command that is to leave a mount behind it is a failure all the same. */
        run->failed = !run->options.foreground ||
                      (!run->shutdown.begun &&
                       (!run->visible || mountpoint_is(run->mountpoint, run->connection)));
        shutdown_request(&run->shutdown);
        return NULL;
    }
    if (!daemon_ready(&run->link)) {
        log_line(LOG_WARNING, "mount",
                 "event=interrupted message=\"unshard mount was ended before "
                 "the mount worked; it is taken away again\"");
        shutdown_request(&run->shutdown);
        return NULL;
    }
    log_line(LOG_NOTICE, "mount", "event=mounted source=\"%s\" mountpoint=\"%s\"", run->source,
             place_of(run));
    return NULL;
}

/* What a manifest has digests of is checked at once. */
static int note_chunks(void *context, const char *path, struct unshard_checkpoint *layout)
{
    struct unshard_fetch_options *fetch = context;
    uint64_t bytes = unshard_digest_chunk_bytes(layout);
    (void)path;
    if (bytes > fetch->digest_chunk_bytes)
        fetch->digest_chunk_bytes = bytes;
    return 0;
}

static void see_source(const struct filesystem *filesystem)
{
    struct unshard_place root;
    if (unshard_tree_look(filesystem->tree, "", &root, NULL))
        return;
    inode_table_see_root(filesystem->inodes, root.layout);
    unshard_layout_release(root.layout);
}

static int start_threads(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    struct unshard_publisher publisher = publisher_for(filesystem);
    shutdown_init(&run->shutdown, filesystem, run->mountpoint,
                  mountpoint_open_abort(run->connection), run->terminal);
    run->shutdown.lasting = run->private;
    int result = log_writer_start();
    if (result)
        return unshard_error_set(&run->error, "threads", -result, "cannot start threads: %s",
                                 strerror(-result));
    filesystem->waiting = waiting_room_new();
    if (!filesystem->waiting)
        return unshard_error_set(&run->error, "threads", EAGAIN, "cannot start threads");
    if (filesystem->whole)
        whole_each(filesystem->whole, note_chunks, &run->options.fetch);
    result = unshard_engine_start(unshard_tree_root(filesystem->tree), &run->options.fetch,
                                  &publisher, &filesystem->engine, &run->error);
    if (result)
        return result;
    inode_table_set_engine(filesystem->inodes, filesystem->engine);
    see_source(filesystem);
    result = filesystem->whole ? whole_attach(filesystem, &run->error) : 0;
    if (result)
        return result;
    result = control_start(filesystem);
    if (!result)
        result = reporter_start(run->reporter, filesystem->engine);
    if (!result)
        result = shutdown_start(&run->shutdown);
    if (!result)
        result = monitor_keep(&run->monitor);
    if (!result) {
        result = -pthread_create(&run->ready_thread, NULL, announce, run);
        run->ready_thread_runs = result == 0;
    }
    if (result)
        return unshard_error_set(&run->error, "threads", -result, "cannot start threads: %s",
                                 strerror(-result));
    return 0;
}

static void end_reports(struct mount_run *run)
{
    reporter_stop(run->reporter);
    run->reporter = NULL;
}

/* Tells whoever started the command why there is no mount. */
static void report_failure(struct mount_run *run)
{
    char *json = run->options.json ? error_json_object(&run->error) : NULL;
    daemon_failed(&run->link, json ? json : run->error.message);
    free(json);
}

/* After the loop, or instead of it when something failed before. */
static void take_down(struct mount_run *run)
{
    bool stopped = true, begun = run->filesystem.engine != NULL;
    run->loop_ended = true;
    prober_kill(&run->prober);
    if (run->filesystem.initialised_fd >= 0 && eventfd_write(run->filesystem.initialised_fd, 1))
        errno = 0; /* it wakes up later */
    end_reports(run);
    if (begun)
        shutdown_loop_left(&run->shutdown);
    monitor_let_go(&run->monitor);
    if (begun) {
        stopped = shutdown_finish(&run->shutdown);
    } else {
        session_unmount(&run->filesystem);
    }
    if (run->connection && !run->given)
        mountpoint_detach(run->mountpoint,
                          run->connection); /* libfuse leaves an aborted mount where it is */
    if (run->ready_thread_runs)
        pthread_join(run->ready_thread, NULL);
    if (begun)
        shutdown_release(&run->shutdown);
    prober_close(&run->prober);
    monitor_stop(&run->monitor);
    log_line(LOG_NOTICE, "mount", "event=unmounted mountpoint=\"%s\"", place_of(run));
    if (stopped) {
        session_close(&run->filesystem);
        return;
    }
    /* Threads hang in the source and still use everything: nothing can be freed. */
    if (run->failed)
        report_failure(run);
    log_writer_end();
    _exit(run->failed ? 1 : 0);
}

/* What covers a directory that all could read is for all of them, too, if that is not refused. */
static bool is_for_all(const struct mount_run *run)
{
    return run->options.over && !run->options.allow_root && geteuid() == 0;
}

static int mount_session(struct mount_run *run)
{
    struct session_options options = {
        .mountpoint = run->given ? run->given_path : run->mountpoint,
        .fsname = run->options.fsname ? run->options.fsname : run->source,
        .allow_other = run->options.allow_other || is_for_all(run),
        .allow_root = run->options.allow_root,
    };
    return session_open(&run->filesystem, &options, &run->error);
}

/* `unshard mount --prepare`: makes the mount, and leaves it to a daemon that is yet to come. */
static int prepare_for_another(struct mount_run *run)
{
    int result = resolve(run);
    if (!result)
        result = mount_session(run);
    if (result)
        return result;
    result = service_manager_keep(session_descriptor(&run->filesystem), &run->error);
    if (result)
        session_unmount(&run->filesystem);
    else
        _exit(0); /* the session would unmount */
    session_close(&run->filesystem);
    return result;
}

static int serve(struct mount_run *run)
{
    shutdown_block_signals();
    if (!daemon_outlives_parent(&run->link))
        return unshard_error_set(&run->error, "mount", EINTR, "unshard mount was ended");
    int result = mount_session(run);
    if (result)
        return result;
    result = start_helpers(run);
    if (!result)
        result = start_threads(run);
    if (!result) {
        int loop = session_loop(&run->filesystem);
        if (loop < 0)
            log_line(LOG_ERR, "mount", "event=loop-ended errno=%d", -loop);
    }
    take_down(run);
    return result ? result : run->failed ? -EIO : 0;
}

static void release(struct mount_run *run)
{
    claim_release(run->claim);
    end_reports(run);
    status_snapshots_end();
    directories_end();
    if (waiting_close(run->filesystem.waiting, 0) == 0) /* left when there was no engine */
        waiting_room_free(run->filesystem.waiting);
    whole_free(run->filesystem.whole);
    inode_table_free(run->filesystem.inodes);
    retriever_free(run->filesystem.retriever);
    unshard_tree_close(run->filesystem.tree);
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
    int result = log_open(run->options.log_path, !run->options.foreground);
    if (result)
        unshard_error_set(&run->error, "log", -result, "%s: cannot open the log: %s",
                          run->options.log_path ? run->options.log_path : "syslog",
                          log_open_reason(result));
    privileges_drop();
    if (!result)
        result = prepare(run);
    if (!result)
        result = serve(run);
    if (result)
        report_failure(run);
    log_writer_end();
    return result ? 1 : 0;
}

static int run_mount(struct mount_run *run)
{
    if (run->options.prepare) {
        int result = prepare_for_another(run);
        if (result)
            fprintf(stderr, "unshard: %s\n", run->error.message);
        return result ? 1 : 0;
    }
    run->link.json = run->options.json;
    int result = daemon_begin(&run->link, run->options.foreground,
                              mounted_fd_parse(run->options.mountpoint));
    if (result) {
        fprintf(stderr, "unshard: cannot fork: %s\n", strerror(-result));
        return 1;
    }
    run->terminal = run->options.foreground && shutdown_has_terminal();
    if (!run->options.foreground)
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
    run->link.fd = run->claim = run->root = run->user_namespace = -1;
    run->filesystem.initialised_fd = -1;
    return run;
}

int command_mount(int argc, char **argv)
{
    struct mount_run *run = new_run();
    if (!run)
        return 1;
    int parsed = options_parse_mount(argc, argv, &run->options);
    if (parsed) {
        free(run);
        return parsed > 0 ? 0 : 2;
    }
    int status = run_mount(run);
    release(run);
    free(run);
    return status;
}

/* ---- for a command in a namespace of its own ---------------------------------------------------
 */

static int know_groups(struct mount_run *run)
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
    return mount.first_group_alone ? know_groups(run) : 0;
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
    int status = receive_mount(run) ? 1 : run_daemon(run);
    let_go_of_mount(run);
    release(run);
    free(run);
    return status;
}
