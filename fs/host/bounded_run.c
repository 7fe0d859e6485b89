/* SPDX-License-Identifier: MIT */
#include "fs/host/bounded_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/monotonic.h"
#include "fs/host/write_whole.h"

#define STREAMS 2 /* what the child prints, and its errors */

/* Hands on what has come from one of them. False: it has ended. */
static bool hand_on(int from, int to)
{
    char piece[4096];
    ssize_t count = read(from, piece, sizeof piece);
    if (count < 0)
        return errno == EINTR;
    if (count > 0)
        write_whole(to, piece, (size_t)count);
    return count > 0;
}

/* Hands on what the child prints until it, and those that it starts, have ended. */
static int wait_for_end(const int streams[STREAMS], int timeout_ms)
{
    int64_t end = monotonic_ms() + timeout_ms, left = timeout_ms;
    struct pollfd open[STREAMS] = {{streams[0], POLLIN, 0}, {streams[1], POLLIN, 0}};
    while (open[0].fd >= 0 || open[1].fd >= 0) {
        int ready = poll(open, STREAMS, left > 0 ? (int)left : 0);
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready == 0 && left <= 0)
            return -ETIMEDOUT;
        for (int i = 0; ready > 0 && i < STREAMS; i++)
            if (open[i].fd >= 0 && open[i].revents &&
                !hand_on(open[i].fd, i == 0 ? STDOUT_FILENO : STDERR_FILENO))
                open[i].fd = -1;
        left = end - monotonic_ms();
    }
    return 0;
}

static int reap(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static _Noreturn void become_child(int (*work)(void *context), void *context, int keep,
                                   const int streams[STREAMS])
{
    dup2(streams[0], STDOUT_FILENO);
    dup2(streams[1], STDERR_FILENO);
    close_others(STDERR_FILENO + 1, keep, -1);
    int status = work(context);
    fflush(NULL);
    _exit(status);
}

int bounded_run(int (*work)(void *context), void *context, int keep, int timeout_ms)
{
    int out[2], errors[2];
    if (pipe2(out, O_CLOEXEC))
        return -errno;
    if (pipe2(errors, O_CLOEXEC)) {
        int saved = errno;
        close(out[0]);
        close(out[1]);
        return -saved;
    }
    fflush(NULL);
    pid_t child = fork();
    int result = child < 0 ? -errno : 0;
    if (child == 0)
        become_child(work, context, keep, (const int[]){out[1], errors[1]});
    close(out[1]);
    close(errors[1]);
    if (child > 0) {
        result = wait_for_end((const int[]){out[0], errors[0]}, timeout_ms);
        if (result)
            kill(child, SIGKILL);
        else
            result = reap(child);
    }
    close(out[0]);
    close(errors[0]);
    return result;
}
