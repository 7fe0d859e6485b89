/* SPDX-License-Identifier: MIT */
#include "fs/mount/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/host/mountpoint.h"
#include "fs/host/server.h"
#include "fs/mount/refuser.h"

#define DEAD_MS 2000
/* Between two replacements, when something ends one after the other. */
#define REPLACE_MS 100u

/* ---- the process -------------------------------------------------------------------------------
 */

static void leave_descriptors(int abort_fd, int device)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd);
    close_others(STDERR_FILENO + 1, abort_fd, device);
}

static void take_mount_away(const struct monitor *monitor, pid_t daemon, int abort_fd)
{
    const char *path = monitor->path;
    bool ended = mountpoint_abort(path, monitor->connection, abort_fd) == 0;
    if (!ended && monitor->device >= 0) {
        refuse_until_gone(monitor->device, daemon);
        close(monitor->device);
        ended =
            mountpoint_is(path, monitor->connection) && server_ask(path, DEAD_MS) == SERVER_GONE;
    }
    /* A mount whose connection goes on must stay where it can be found: see mountpoint_detach. */
    if (ended)
        mountpoint_detach(path, monitor->connection);
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

/* The daemon may have had threads as this was forked: nothing here needs a lock of theirs. */
static void run(const struct monitor *monitor, pid_t daemon)
{
    sigset_t death;
    sigemptyset(&death);
    sigaddset(&death, SIGUSR1);
    sigprocmask(SIG_BLOCK, &death, NULL);
    /* A terminal's or a service manager's signal to the whole group is for the daemon. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    prctl(PR_SET_NAME, "unshard-monitor");
    int abort_fd = mountpoint_open_abort(monitor->connection);
    leave_descriptors(abort_fd, monitor->device);
    wait_for_death(daemon);
    take_mount_away(monitor, daemon, abort_fd);
}

/* ---- the daemon's side -------------------------------------------------------------------------
 */

/* The process, or a negative errno. */
static pid_t fork_monitor(const struct monitor *monitor)
{
    pid_t daemon = getpid();
    pid_t child = fork();
    if (child == 0) {
        run(monitor, daemon);
        _exit(0);
    }
    return child < 0 ? -errno : child;
}

int monitor_start(struct monitor *monitor, const char *path, unsigned connection, int device,
                  struct unshard_error *error)
{
    *monitor = (struct monitor){.path = path, .connection = connection, .device = device};
    pthread_mutex_init(&monitor->mutex, NULL);
    monotonic_condition_init(&monitor->changed);
    pid_t process = fork_monitor(monitor);
    if (process < 0)
        return unshard_error_set(error, "monitor", -process, "cannot fork the monitor: %s",
                                 strerror(-process));
    monitor->process = process;
    return 0;
}

/* Reaps the monitor that has ended, and starts another one. Called with the mutex held. */
static void replace(struct monitor *monitor)
{
    int status = 0;
    if (monitor->process > 0)
        waitpid(monitor->process, &status, 0);
    pid_t process = fork_monitor(monitor);
    monitor->process = process > 0 ? process : 0;
    if (process > 0)
        log_line(LOG_WARNING, "monitor",
                 "event=monitor-replaced signal=%d message=\"the process that watches over the "
                 "daemon had ended; another one does it now\"",
                 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    else
        log_line(LOG_ERR, "monitor", "event=monitor-lost errno=%d", -process);
    struct timespec deadline = monotonic_deadline(REPLACE_MS);
    while (!monitor->stopping &&
           pthread_cond_timedwait(&monitor->changed, &monitor->mutex, &deadline) == 0)
        ;
}

static void *keep(void *argument)
{
    struct monitor *monitor = argument;
    pthread_mutex_lock(&monitor->mutex);
    while (!monitor->stopping) {
        pid_t process = monitor->process;
        pthread_mutex_unlock(&monitor->mutex);
        siginfo_t info;
        /* It is reaped with the mutex, so that monitor_stop never names another process. */
        if (process > 0)
            waitid(P_PID, (id_t)process, &info, WEXITED | WNOWAIT);
        pthread_mutex_lock(&monitor->mutex);
        if (!monitor->stopping)
            replace(monitor);
    }
    pthread_mutex_unlock(&monitor->mutex);
    return NULL;
}

int monitor_keep(struct monitor *monitor)
{
    int result = pthread_create(&monitor->keeper, NULL, keep, monitor);
    monitor->keeper_runs = result == 0;
    return -result;
}

/* Ends the thread and the process. */
static void end(struct monitor *monitor)
{
    pthread_mutex_lock(&monitor->mutex);
    monitor->stopping = true;
    if (monitor->process > 0)
        kill(monitor->process, SIGKILL);
    pthread_cond_signal(&monitor->changed);
    pthread_mutex_unlock(&monitor->mutex);
    if (monitor->keeper_runs)
        pthread_join(monitor->keeper, NULL);
    monitor->keeper_runs = false;
    while (monitor->process > 0 && waitpid(monitor->process, NULL, 0) < 0 && errno == EINTR)
        ;
    monitor->process = 0;
}

void monitor_let_go(struct monitor *monitor)
{
    if (!monitor->path)
        return;
    end(monitor);
    monitor->device = -1;
    pid_t process = fork_monitor(monitor);
    monitor->process = process > 0 ? process : 0;
}

void monitor_stop(struct monitor *monitor)
{
    if (!monitor->path)
        return;
    end(monitor);
    pthread_cond_destroy(&monitor->changed);
    pthread_mutex_destroy(&monitor->mutex);
    monitor->path = NULL;
}
