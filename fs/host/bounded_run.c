/* SPDX-License-Identifier: MIT */
#include "fs/host/bounded_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/monotonic.h"

/* A pipe that only the child and those that it starts hold open ends when they have ended. */
static int wait_for_end(int fd, int timeout_ms)
{
    int64_t end = monotonic_ms() + timeout_ms, left;
    do {
        left = end - monotonic_ms();
        struct pollfd entry = {.fd = fd};
        int ready = poll(&entry, 1, left > 0 ? (int)left : 0);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -errno;
    } while (left > 0);
    return -ETIMEDOUT;
}

static int reap(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

int bounded_run(int (*work)(void *context), void *context, int keep, int timeout_ms)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    fflush(NULL);
    pid_t child = fork();
    int result = child < 0 ? -errno : 0;
    if (child == 0) {
        close_others(STDERR_FILENO + 1, ends[1], keep);
        int status = work(context);
        fflush(NULL);
        _exit(status);
    }
    close(ends[1]);
    if (child > 0) {
        result = wait_for_end(ends[0], timeout_ms);
        if (result)
            kill(child, SIGKILL);
        else
            result = reap(child);
    }
    close(ends[0]);
    return result;
}
