/* SPDX-License-Identifier: MIT */
#include "fs/mount/prober.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/monotonic.h"
#include "fs/kernel/status_files.h"

#define MOST_OTHERS 1000U
#define MOST_MS 10000U

/* What the child reports: how it ended and, when it failed, with what. */
struct report {
    int errno_value;
    uint32_t view;
};

/* Looks one path of the mount up. 0 or a positive errno. No descriptor of a mount that others can
 * unmount is held, so that nobody finds it busy because of us. */
static int look_up(const struct prober_place *place, const char *name)
{
    char path[PATH_MAX];
    struct stat attributes;
    int length = place->path ? snprintf(path, sizeof path, "%s/%s", place->path, name)
                             : snprintf(path, sizeof path, "%s", name);
    if ((size_t)length >= sizeof path)
        return 0; /* there, but only reached in steps */
    /* Neither is it a fault when the mode bits of a directory hide a view from us. */
    return fstatat(place->root, path, &attributes, AT_SYMLINK_NOFOLLOW) && errno != EACCES ? errno
                                                                                           : 0;
}

/* Views that are prefetched need an inode. Of other files a few show that the mount works; who
 * reads one looks it up. */
static bool is_wanted(const struct unshard_checkpoint *checkpoint, uint32_t view, unsigned *others)
{
    if (!unshard_view_listed(checkpoint, view))
        return false;
    return unshard_view_component(checkpoint, view) >= 0 || (*others)++ < MOST_OTHERS;
}

static bool is_past(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec ||
           (now.tv_sec == deadline->tv_sec && now.tv_nsec > deadline->tv_nsec);
}

/* Does not go on for ever: what it has not come to is prefetched when somebody looks it up. */
static int look_up_views(const struct unshard_checkpoint *checkpoint,
                         const struct prober_place *place, struct report *report)
{
    unsigned others = 0;
    struct timespec end = monotonic_deadline(MOST_MS);
    report->view = UNSHARD_NO_VIEW;
    int result = look_up(place, STATUS_DIRECTORY_NAME);
    for (uint32_t view = 0; !result && view < unshard_view_count(checkpoint); view++) {
        if (!is_wanted(checkpoint, view, &others))
            continue;
        report->view = view;
        result = look_up(place, unshard_view_path(checkpoint, view));
        if (is_past(&end))
            break;
    }
    return result;
}

/* The root gets a number that is not closed with the others. */
static void enter(struct prober_place *place)
{
    if (place->user_namespace >= 0 && setns(place->user_namespace, CLONE_NEWUSER))
        errno = 0; /* then looking at the mount fails, which tells */
    if (place->path)
        place->root = AT_FDCWD;
    else
        place->root = dup2(place->root, 0);
}

static void run(const struct unshard_checkpoint *checkpoint, struct prober_place place, int go_fd,
                int result_fd)
{
    char go;
    struct report report;
    prctl(PR_SET_NAME, "unshard-prober");
    signal(SIGPIPE, SIG_IGN);
    enter(&place);
    close_others(place.path ? 0 : 1, go_fd, result_fd);
    if (read(go_fd, &go, 1) != 1)
        return;
    report.errno_value = look_up_views(checkpoint, &place, &report);
    if (write(result_fd, &report, sizeof report) < 0)
        return; /* the daemon sees the end of the pipe */
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

int prober_start(struct prober *prober, const struct unshard_checkpoint *checkpoint,
                 const struct prober_place *place, struct unshard_error *error)
{
    int go[2] = {-1, -1}, result[2] = {-1, -1};
    pid_t child = -1;
    if (pipe2(go, O_CLOEXEC) == 0 && pipe2(result, O_CLOEXEC) == 0)
        child = fork();
    int saved = errno;
    if (child == 0) {
        run(checkpoint, *place, go[0], result[1]);
        _exit(0);
    }
    close_if_open(go[0]);
    close_if_open(result[1]);
    if (child < 0) {
        close_if_open(go[1]);
        close_if_open(result[0]);
        return unshard_error_set(error, "prober", saved, "cannot fork the prober: %s",
                                 strerror(saved));
    }
    *prober = (struct prober){.started = true,
                              .process_fd = pidfd_open(child, 0),
                              .go_fd = go[1],
                              .result_fd = result[0]};
    if (prober->process_fd >= 0)
        return 0;
    saved = errno;
    prober->started = false;
    close(go[1]); /* the end of the pipe ends it */
    close(result[0]);
    waitpid(child, NULL, 0);
    return unshard_error_set(error, "prober", saved, "pidfd_open: %s", strerror(saved));
}

int prober_run(struct prober *prober, int timeout_ms, int waiting_fd, struct unshard_error *error)
{
    struct report report;
    struct pollfd entries[] = {{.fd = prober->result_fd, .events = POLLIN}, {.fd = waiting_fd}};
    if (write(prober->go_fd, "g", 1) != 1)
        return unshard_error_set(error, "prober", errno, "the prober is gone");
    /* Signals are blocked in every thread, so the wait is not cut short. */
    int ready = poll(entries, 2, timeout_ms);
    if (ready == 0)
        return unshard_error_set(error, "mount", ETIMEDOUT, "the mount did not answer within %d s",
                                 timeout_ms / 1000);
    if (ready > 0 && !entries[0].revents)
        return unshard_error_set(error, "mount", EINTR, "unshard mount was ended");
    if (ready < 0 || read(prober->result_fd, &report, sizeof report) != (ssize_t)sizeof report)
        return unshard_error_set(error, "mount", EIO, "looking at the new mount was cut short");
    if (report.errno_value)
        return unshard_error_set(error, "mount", report.errno_value,
                                 "the new mount does not work: %s (view %d)",
                                 strerror(report.errno_value), (int)report.view);
    return 0;
}

void prober_kill(const struct prober *prober)
{
    if (prober->started)
        pidfd_send_signal(prober->process_fd, SIGKILL, NULL, 0);
}

void prober_reap(struct prober *prober)
{
    siginfo_t info;
    while (waitid(P_PIDFD, (id_t)prober->process_fd, &info, WEXITED) < 0 && errno == EINTR)
        ;
    prober->reaped = true;
}

void prober_close(struct prober *prober)
{
    if (!prober->started)
        return;
    if (!prober->reaped)
        prober_reap(prober);
    close(prober->process_fd);
    close(prober->go_fd);
    close(prober->result_fd);
    prober->started = false;
}
