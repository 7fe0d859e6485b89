/* SPDX-License-Identifier: MIT */
#include "fs/host/orphans.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/close_others.h"

static void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it ended before it was asked for */
        _exit(1);
}

/* In the keeper. Its memory is a copy, so nothing of it needs to be freed. */
static void keep(const int (*pairs)[2], unsigned count,
                 int (*work)(void *context, unsigned number, int link), void *context, int hold)
{
    pid_t keeper = getpid();
    char end;
    for (unsigned i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0) /* its socket ends, which tells */
            continue;
        if (child > 0)
            continue;
        die_with(keeper);
        int link = pairs[i][1];
        close_others(STDERR_FILENO + 1, link, -1);
        setsid();
        _exit(work(context, i, link));
    }
    close_others(STDERR_FILENO + 1, hold, -1);
    while (read(hold, &end, 1) < 0 && errno == EINTR)
        ;
}

static void close_pairs(int (*pairs)[2], unsigned count, int side)
{
    for (unsigned i = 0; i < count; i++)
        close(pairs[i][side]);
}

static int make_pairs(int (*pairs)[2], unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i])) {
            int saved = errno;
            close_pairs(pairs, i, 0);
            close_pairs(pairs, i, 1);
            return -saved;
        }
    return 0;
}

/* The keeper, or a negative errno. */
static pid_t fork_keeper(const int (*pairs)[2], unsigned count,
                         int (*work)(void *context, unsigned number, int link), void *context,
                         int *hold)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    fflush(NULL);
    pid_t self = getpid(), keeper = fork();
    if (keeper == 0) {
        die_with(self);
        close(ends[1]);
        keep(pairs, count, work, context, ends[0]);
        _exit(0);
    }
    int saved = errno;
    close(ends[0]);
    *hold = ends[1];
    if (keeper > 0)
        return keeper;
    close(ends[1]);
    return -saved;
}

int orphans_start(struct orphans *orphans, unsigned count,
                  int (*work)(void *context, unsigned number, int link), void *context)
{
    int(*pairs)[2] = calloc(count, sizeof *pairs);
    *orphans = (struct orphans){.links = calloc(count, sizeof *orphans->links), .count = count};
    int result = pairs && orphans->links ? make_pairs(pairs, count) : -ENOMEM;
    if (!result) {
        pid_t keeper = fork_keeper((const int(*)[2])pairs, count, work, context, &orphans->hold);
        close_pairs(pairs, count, 1);
        orphans->keeper = keeper;
        result = keeper < 0 ? (int)keeper : 0;
        if (result)
            close_pairs(pairs, count, 0);
    }
    for (unsigned i = 0; !result && i < count; i++)
        orphans->links[i] = pairs[i][0];
    free(pairs);
    if (!result)
        return 0;
    free(orphans->links);
    *orphans = (struct orphans){0};
    return result;
}

void orphans_release(struct orphans *orphans)
{
    if (orphans->keeper <= 0)
        return;
    close(orphans->hold);
    while (waitpid(orphans->keeper, NULL, 0) < 0 && errno == EINTR)
        ;
    for (unsigned i = 0; i < orphans->count; i++)
        close(orphans->links[i]);
    free(orphans->links);
    *orphans = (struct orphans){0};
}
