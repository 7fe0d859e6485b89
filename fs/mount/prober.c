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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/monotonic.h"
#include "fs/kernel/nodes.h"
#include "fs/kernel/status_files.h"
#include "fs/kernel/whole.h"

#define MOST_OTHERS 1000U
#define MOST_MS 10000U
#define LOOK_UP_MS 10000
#define LATE (-1) /* no errno: the time is over */

/* What the child reports: how it ended and, when it failed, with what. */
struct report {
    int errno_value;
    char path[256];
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

static bool is_past(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec ||
           (now.tv_sec == deadline->tv_sec && now.tv_nsec > deadline->tv_nsec);
}

/* What has been looked up of a whole. */
struct tour {
    const struct prober_place *place;
    struct report *report;
    struct timespec end;
    unsigned others;
};

/* Files that are prefetched need an inode. Of others a few show that the mount works; who reads one
 * looks it up. Does not go on for ever: what it has not come to is prefetched when somebody looks
 * it up. */
static int look_up_files(void *context, const char *directory, struct unshard_checkpoint *layout)
{
    struct tour *tour = context;
    int result = 0;
    (void)directory;
    for (uint32_t view = 0; !result && view < unshard_view_count(layout); view++) {
        if (!unshard_view_listed(layout, view) ||
            (unshard_view_component(layout, view) < 0 && tour->others++ >= MOST_OTHERS))
            continue;
        if (is_past(&tour->end))
            return LATE;
        const char *path = unshard_view_path(layout, view);
        result = look_up(tour->place, path);
        if (result)
            snprintf(tour->report->path, sizeof tour->report->path, "%s", path);
    }
    return result;
}

static void look_around(const struct whole *whole, const struct prober_place *place,
                        struct report *report)
{
    struct tour tour = {.place = place, .report = report, .end = monotonic_deadline(MOST_MS)};
    int result = look_up(place, STATUS_DIRECTORY_NAME);
    if (!result && whole)
        result = whole_each(whole, look_up_files, &tour);
    report->errno_value = result == LATE ? 0 : result;
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

/* The kernel may remember for a moment that there was nothing. */
static void look_up_late(const struct prober_place *place, const char *path)
{
    const struct timespec moment = {.tv_nsec = (long)((NODES_TIMEOUT + 0.1) * 1e9)};
    if (look_up(place, path) != ENOENT)
        return;
    nanosleep(&moment, NULL);
    look_up(place, path);
}

/* A path at a time, until the daemon is gone. */
static void stay(const struct prober_place *place, int talk)
{
    char path[PATH_MAX];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        ssize_t length = recv(talk, path, sizeof path - 1, 0);
        if (length <= 0)
            return;
        path[length] = '\0';
        look_up_late(place, path);
        if (send(talk, "", 1, MSG_NOSIGNAL) != 1)
            return;
    }
}

static void run(const struct whole *whole, struct prober_place place, bool stays, int talk)
{
    char go;
    struct report report = {0};
    prctl(PR_SET_NAME, "unshard-prober");
    enter(&place);
    close_others(place.path ? 0 : 1, talk, -1);
    if (recv(talk, &go, 1, 0) != 1)
        return;
    look_around(whole, &place, &report);
    if (send(talk, &report, sizeof report, MSG_NOSIGNAL) == sizeof report && stays)
        stay(&place, talk);
}

int prober_start(struct prober *prober, const struct whole *whole, bool stays,
                 const struct prober_place *place, struct unshard_error *error)
{
    int talk[2] = {-1, -1};
    pid_t child = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk) == 0)
        child = fork();
    int saved = errno;
    if (child == 0) {
        run(whole, *place, stays, talk[1]);
        _exit(0);
    }
    if (talk[1] >= 0)
        close(talk[1]);
    if (child < 0) {
        if (talk[0] >= 0)
            close(talk[0]);
        return unshard_error_set(error, "prober", saved, "cannot fork: %s", strerror(saved));
    }
    prober->started = true;
    prober->stays = stays;
    prober->process_fd = pidfd_open(child, 0);
    prober->talk = talk[0];
    if (prober->process_fd >= 0)
        return 0;
    saved = errno;
    prober->started = false;
    close(talk[0]); /* which ends it */
    waitpid(child, NULL, 0);
    return unshard_error_set(error, "prober", saved, "pidfd_open: %s", strerror(saved));
}

int prober_run(struct prober *prober, int timeout_ms, int waiting_fd, struct unshard_error *error)
{
    struct report report;
    char quoted[300];
    struct pollfd entries[] = {{.fd = prober->talk, .events = POLLIN}, {.fd = waiting_fd}};
    if (send(prober->talk, "g", 1, MSG_NOSIGNAL) != 1)
        return unshard_error_set(error, "prober", errno, "the prober is gone");
    /* Signals are blocked in every thread, so the wait is not cut short. */
    int ready = poll(entries, 2, timeout_ms);
    if (ready == 0)
        return unshard_error_set(error, "mount", ETIMEDOUT, "the mount did not answer within %d s",
                                 timeout_ms / 1000);
    if (ready > 0 && !entries[0].revents)
        return unshard_error_set(error, "mount", EINTR, "unshard mount was ended");
    if (ready < 0 ||
        recv(prober->talk, &report, sizeof report, MSG_DONTWAIT) != (ssize_t)sizeof report)
        return unshard_error_set(error, "mount", EIO, "looking at the new mount was cut short");
    if (report.errno_value)
        return unshard_error_set(error, "mount", report.errno_value,
                                 "the new mount does not work: %s (%s)",
                                 strerror(report.errno_value),
                                 unshard_quote(quoted, sizeof quoted, report.path,
                                               strnlen(report.path, sizeof report.path)));
    prober->waits = prober->stays;
    return 0;
}

void prober_look_up(struct prober *prober, const char *path)
{
    char done;
    struct pollfd entry = {.fd = prober->talk, .events = POLLIN};
    size_t length = strlen(path);
    if (!prober->waits || length == 0 || length >= PATH_MAX ||
        send(prober->talk, path, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length)
        return;
    if (poll(&entry, 1, LOOK_UP_MS) > 0 && recv(prober->talk, &done, 1, MSG_DONTWAIT) == 1)
        return;
    shutdown(prober->talk, SHUT_RDWR); /* an answer would be taken for that of the next one */
}

void prober_kill(const struct prober *prober)
{
    if (!prober->started)
        return;
    pidfd_send_signal(prober->process_fd, SIGKILL, NULL, 0);
    shutdown(prober->talk, SHUT_RDWR); /* it may be waiting for the mount, unkillably */
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
    close(prober->talk);
    prober->started = false;
}
