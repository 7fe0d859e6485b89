/* SPDX-License-Identifier: MIT */
#include "fs/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "fs/mountpoint.h"

static void close_everything_but(int keep)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; fd++)
        if (null >= 0)
            dup2(null, fd);
    if (keep > 3)
        close_range(3, (unsigned)keep - 1, 0);
    close_range(keep >= 3 ? (unsigned)keep + 1 : 3u, ~0U, 0);
}

static void take_mount_away(const char *path, unsigned connection, int abort_fd)
{
    /* A mount whose connection goes on must stay where it can be found: see mountpoint_detach. */
    if (mountpoint_abort(path, connection, abort_fd) == 0)
        mountpoint_detach(path, connection);
}

static void wait_for_death(pid_t daemon)
{
    sigset_t death;
    sigemptyset(&death);
    sigaddset(&death, SIGUSR1);
    /* The signal may have been due before it was asked for. The time is a second line of defence.
     */
    while (getppid() == daemon) {
        struct timespec wait = {.tv_sec = 5};
        if (sigtimedwait(&death, NULL, &wait) == SIGUSR1)
            return;
    }
}

static void run(pid_t daemon, const char *path, unsigned connection)
{
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    prctl(PR_SET_NAME, "unshard-monitor");
    int abort_fd = mountpoint_open_abort(connection);
    close_everything_but(abort_fd);
    wait_for_death(daemon);
    take_mount_away(path, connection, abort_fd);
}

int monitor_start(struct monitor *monitor, const char *path, unsigned connection,
                  struct unshard_error *error)
{
    pid_t daemon = getpid();
    pid_t child = fork();
    if (child < 0) {
        int saved = errno;
        return error_set(error, "monitor", saved, "cannot fork the monitor: %s", strerror(saved));
    }
    if (child == 0) {
        /* A terminal's or a service manager's signal to the whole group is for the daemon. */
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        run(daemon, path, connection);
        _exit(0);
    }
    monitor->process = child;
    return 0;
}

void monitor_stop(struct monitor *monitor)
{
    if (monitor->process <= 0)
        return;
    kill(monitor->process, SIGKILL);
    while (waitpid(monitor->process, NULL, 0) < 0 && errno == EINTR)
        ;
    monitor->process = 0;
}
