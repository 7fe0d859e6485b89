/* SPDX-License-Identifier: MIT */
#include "fs/mount/serving.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/host/log_writer.h"
#include "fs/host/mountpoint.h"
#include "fs/kernel/control.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/publisher.h"
#include "fs/kernel/session.h"
#include "fs/kernel/waiting.h"
#include "fs/kernel/whole.h"
#include "fs/mount/continuing.h"
#include "fs/mount/mount_place.h"
#include "fs/mount/mount_source.h"

#define READY_TIMEOUT_MS 30000

static void look_up(void *context, const char *path)
{
    prober_look_up(context, path);
}

static int keep_start(struct mount_run *run)
{
    struct start *start = &run->start;
    start->given = run->given;
    start->visible = run->visible;
    start->private = run->private;
    start->first_group = run->first_group;
    start->terminal = run->terminal;
    start->bound = run->bound;
    start->number = run->private ? run->view.number : 0;
    start->connection = run->connection;
    start->directory = run->directory ? run->directory : "/";
    start->source = run->source;
    start->mountpoint = run->mountpoint;
    start->shown = mount_place_shown(run);
    int result = start_keep(run->filesystem.keep, start);
    return result
               ? unshard_error_set(&run->error, "monitor", -result,
                                   "cannot keep how the mount was started: %s", strerror(-result))
               : 0;
}

/* From here on the mount goes on when this process dies. */
static int begin_to_outlive(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    const int handed[HANDED_COUNT] = {
        [HANDED_DEVICE] = session_descriptor(filesystem),
        [HANDED_KEEP] = unshard_keep_descriptor(filesystem->keep),
        [HANDED_SOURCE] = unshard_tree_directory(filesystem->tree),
    };
    int result = keep_start(run);
    if (!result)
        result = supervised_begin(&run->supervised, filesystem->keep, run->talk, getppid(), handed,
                                  &run->error);
    if (!result && run->bound)
        supervised_bind(&run->supervised);
    if (result)
        return result;
    mount_run_note_crashes(run);
    /* Nobody waits there for the word that it works. */
    run->supervised.life->served = run->options.foreground && !run->private;
    return 0;
}

/* Forks the helpers. They must come from the main thread, before there are others. */
static int start_helpers(struct mount_run *run)
{
    int result = 0;
    if (run->again)
        mount_place_set(run);
    else
        result = mount_place_find(run);
    if (!result && !run->again)
        result = begin_to_outlive(run);
    struct prober_place place = {.path = run->visible ? run->mountpoint : NULL,
                                 .root = run->root,
                                 .user_namespace = run->user_namespace};
    /* In a command's namespace nobody of ours may stay: it would live as long as that. */
    bool stays = run->visible && (run->options.fetch.prefetch == UNSHARD_PREFETCH_OPEN ||
                                  run->options.fetch.prefetch == UNSHARD_PREFETCH_ALL);
    if (!result && (run->visible || run->root >= 0))
        result = prober_start(&run->prober, run->filesystem.whole, stays, &place, &run->error);
    if (!result && stays) {
        run->filesystem.look_up = look_up;
        run->filesystem.look_up_context = &run->prober;
    }
    mount_place_let_go(run);
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

/* A mount that was there before: it is not to end because somebody does not answer in time. */
static void announce_again(struct mount_run *run)
{
    supervised_serving(&run->supervised);
    log_line(LOG_NOTICE, "mount",
             "event=taken-over source=\"%s\" mountpoint=\"%s\" generation=%u why=%s", run->source,
             mount_place_shown(run), run->succession.generation,
             life_end_name((enum life_end)run->supervised.life->last_end));
    if (run->visible && prove(run))
        log_line(LOG_WARNING, "mount", "event=not-proved message=\"%s\"", run->error.message);
}

static void *announce(void *argument)
{
    struct mount_run *run = argument;
    if (run->again) {
        announce_again(run);
        return NULL;
    }
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
    supervised_serving(&run->supervised);
    log_line(LOG_NOTICE, "mount", "event=mounted source=\"%s\" mountpoint=\"%s\"", run->source,
             mount_place_shown(run));
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

static void end_as_told(void *context, unsigned signals)
{
    shutdown_told(context, signals);
}

static void yield_as_told(void *context)
{
    shutdown_yield(context);
}

static void hang_up_as_told(void *context)
{
    shutdown_hang_up(context);
}

static int start_threads(struct mount_run *run)
{
    struct filesystem *filesystem = &run->filesystem;
    struct unshard_publisher publisher = publisher_for(filesystem);
    shutdown_init(&run->shutdown, filesystem, run->mountpoint,
                  mountpoint_open_abort(run->connection), run->terminal);
    run->shutdown.lasting = run->private;
    run->supervised.ending = end_as_told;
    run->supervised.hangup = hang_up_as_told;
    run->supervised.yield = yield_as_told;
    run->supervised.context = &run->shutdown;
    upgrade_init(&run->upgrade, filesystem, &run->supervised, &run->start);
    int result = log_writer_start();
    if (result)
        return unshard_error_set(&run->error, "threads", -result, "cannot start threads: %s",
                                 strerror(-result));
    filesystem->waiting = waiting_room_new();
    if (!filesystem->waiting)
        return unshard_error_set(&run->error, "threads", EAGAIN, "cannot start threads");
    run->options.fetch.keep = filesystem->keep;
    if (filesystem->whole)
        whole_each(filesystem->whole, note_chunks, &run->options.fetch);
    result = unshard_engine_start(unshard_tree_root(filesystem->tree), &run->options.fetch,
                                  &publisher, &filesystem->engine, &run->error);
    if (result)
        return result;
    inode_table_set_engine(filesystem->inodes, filesystem->engine);
    mount_source_see(filesystem);
    result = filesystem->whole ? whole_attach(filesystem, &run->error) : 0;
    if (result)
        return result;
    result = control_start(filesystem);
    if (!result)
        result = reporter_start(run->reporter, filesystem->engine);
    if (!result)
        result = shutdown_start(&run->shutdown);
    if (!result)
        result = supervised_listen(&run->supervised);
    if (!result && run->again)
        result = takeover_start(&run->takeover, filesystem, run->succession.old);
    if (!result) {
        result = -pthread_create(&run->ready_thread, NULL, announce, run);
        run->ready_thread_runs = result == 0;
    }
    if (result)
        return unshard_error_set(&run->error, "threads", -result, "cannot start threads: %s",
                                 strerror(-result));
    return 0;
}

/* After the loop, or instead of it when something failed before. */
static void take_down(struct mount_run *run)
{
    bool stopped = true, begun = run->filesystem.engine != NULL;
    run->loop_ended = true;
    prober_kill(&run->prober);
    if (run->filesystem.initialised_fd >= 0 && eventfd_write(run->filesystem.initialised_fd, 1))
        errno = 0; /* it wakes up later */
    mount_run_end_reports(run);
    if (begun)
        shutdown_loop_left(&run->shutdown);
    takeover_stop(&run->takeover);
    supervised_leave(&run->supervised);
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
    prober_close(&run->prober);
    supervised_stop(&run->supervised);
    if (begun) /* nobody tells it anything any more */
        shutdown_release(&run->shutdown);
    upgrade_release(&run->upgrade);
    log_line(LOG_NOTICE, "mount", "event=unmounted mountpoint=\"%s\"", mount_place_shown(run));
    if (stopped) {
        session_close(&run->filesystem);
        return;
    }
    /* Threads hang in the source and still use everything: nothing can be freed. */
    if (run->failed)
        mount_run_report(run);
    log_writer_end();
    _exit(run->failed ? 1 : 0);
}

int serving_run(struct mount_run *run)
{
    shutdown_block_signals();
    if (!run->again && !daemon_outlives_parent(&run->link))
        return unshard_error_set(&run->error, "mount", EINTR, "unshard mount was ended");
    int result = run->again ? continuing_adopt(run) : mount_run_open_session(run);
    if (result)
        return result;
    result = start_helpers(run);
    if (!result)
        result = start_threads(run);
    if (result && run->again)
        return result; /* the mount is the next one's */
    if (!result) {
        int loop = session_loop(&run->filesystem);
        if (loop < 0)
            log_line(LOG_ERR, "mount", "event=loop-ended errno=%d", -loop);
    }
    take_down(run);
    return result ? result : run->failed ? -EIO : 0;
}
