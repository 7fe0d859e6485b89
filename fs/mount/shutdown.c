/* SPDX-License-Identifier: MIT */
#include "fs/mount/shutdown.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/host/log_writer.h"
#include "fs/host/monotonic.h"
#include "fs/host/mountpoint.h"
#include "fs/kernel/control.h"
#include "fs/kernel/session.h"
#include "fs/kernel/waiting.h"

#define DRAIN_SLICE_MS 100u
#define DRAIN_SLICES 100u /* 10 s in all */
#define AFTER_LOOP_MS 2000u
#define YIELD_MS 50u
#define STOP_BEFORE_UNMOUNT_MS 1000u
#define STOP_AFTER_UNMOUNT_MS 5000u
#define WAKE_INTERVAL_MS 10u

#define END_SIGNAL SIGUSR2  /* to the signal thread: the loop has ended by itself */
#define WAKE_SIGNAL SIGUSR1 /* to the main thread: look whether the loop is to end */

static void termination_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

static void ignore_signal(int number)
{
    (void)number; /* its arrival is what counts: it ends a wait with EINTR */
}

void shutdown_block_signals(void)
{
    sigset_t set;
    termination_signals(&set);
    sigaddset(&set, END_SIGNAL);
    sigaddset(&set, WAKE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void abort_connection(struct shutdown *shutdown, const char *reason)
{
    log_line(LOG_WARNING, "mount", "event=abort reason=\"%s\"", reason);
    int result = mountpoint_abort(shutdown->mountpoint, shutdown->filesystem->connection,
                                  shutdown->abort_fd);
    if (result)
        log_line(LOG_ERR, "mount", "event=abort-failed errno=%d", -result);
}

bool shutdown_has_terminal(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* SIGHUP says that the terminal is gone, or, as daemons have it, that the log is to be opened
 * again. A foreground mount ends with its terminal, from the kernel or from a shell that goes too,
 * and for want of a log that could be opened again. */
static bool is_hangup(const struct shutdown *shutdown, const siginfo_t *info)
{
    return shutdown->terminal &&
           (info->si_code == SI_KERNEL || !shutdown_has_terminal() || !log_writer_reopen());
}

/* A signal of this process wakes the thread up, to look at what it was asked and told. */
static bool is_own(const siginfo_t *info)
{
    return info->si_code <= 0 && info->si_pid == getpid();
}

/* Counts a signal that has come. */
static void count(struct shutdown *shutdown, const siginfo_t *info)
{
    if (info->si_signo == SIGHUP ? is_hangup(shutdown, info) : !is_own(info) && !shutdown->lasting)
        shutdown->came++;
    else if (info->si_signo == SIGHUP && !shutdown->terminal && !log_writer_reopen())
        log_line(LOG_NOTICE, "mount", "event=reload message=\"there is no log= to open again\"");
}

/* How many have come, to whichever process. */
static unsigned counted(const struct shutdown *shutdown)
{
    unsigned told = shutdown->lasting ? 0 : shutdown->told;
    return shutdown->came > told ? shutdown->came : told;
}

static bool another_signal(struct shutdown *shutdown)
{
    sigset_t set;
    siginfo_t info;
    struct timespec none = {0};
    termination_signals(&set);
    while (sigtimedwait(&set, &info, &none) > 0)
        count(shutdown, &info);
    return counted(shutdown) > 1;
}

/* Waits for what may be blocked in the kernel: stores, and pages being dropped. Nothing of either
 * is begun any more. */
static int quiesce(struct filesystem *filesystem, unsigned timeout_ms)
{
    int result = unshard_engine_quiesce(filesystem->engine, timeout_ms);
    return result ? result : control_quiesce(filesystem->control, timeout_ms);
}

/* Lets running stores end while the loop still answers the reads that they may be waiting for. */
static bool drain_stores(struct shutdown *shutdown)
{
    const char *reason = "stores did not end in time";
    for (unsigned slice = 0; slice < DRAIN_SLICES; slice++) {
        if (quiesce(shutdown->filesystem, DRAIN_SLICE_MS) == 0)
            return true;
        if (another_signal(shutdown)) {
            reason = "second signal";
            break;
        }
    }
    abort_connection(shutdown, reason);
    return quiesce(shutdown->filesystem, AFTER_LOOP_MS) == 0;
}

/* The loop looks at its flag only when its thread's wait is interrupted, and a signal that comes
 * just before the wait is lost: so again and again. */
static void end_loop(struct shutdown *shutdown)
{
    session_exit(shutdown->filesystem);
    pthread_mutex_lock(&shutdown->mutex);
    while (!shutdown->loop_left) {
        pthread_kill(shutdown->main_thread, WAKE_SIGNAL);
        struct timespec deadline = monotonic_deadline(WAKE_INTERVAL_MS);
        pthread_cond_timedwait(&shutdown->changed, &shutdown->mutex, &deadline);
    }
    pthread_mutex_unlock(&shutdown->mutex);
}

static void *wait_for_signals(void *argument)
{
    struct shutdown *shutdown = argument;
    sigset_t set;
    siginfo_t info = {0};
    termination_signals(&set);
    sigaddset(&set, END_SIGNAL);
    while (counted(shutdown) == 0 && !shutdown->asked) {
        if (sigwaitinfo(&set, &info) < 0)
            continue;
        if (info.si_signo == END_SIGNAL)
            return NULL;
        count(shutdown, &info);
    }
    shutdown->begun = true;
    log_line(LOG_NOTICE, "mount", "event=stopping signal=%d", info.si_signo);
    shutdown->quiesced = drain_stores(shutdown);
    end_loop(shutdown);
    return NULL;
}

void shutdown_init(struct shutdown *shutdown, struct filesystem *filesystem, const char *mountpoint,
                   int abort_fd, bool terminal)
{
    *shutdown = (struct shutdown){.filesystem = filesystem,
                                  .mountpoint = mountpoint,
                                  .abort_fd = abort_fd,
                                  .terminal = terminal};
    pthread_mutex_init(&shutdown->mutex, NULL);
    monotonic_condition_init(&shutdown->changed);
}

int shutdown_start(struct shutdown *shutdown)
{
    shutdown->main_thread = pthread_self();
    struct sigaction action = {.sa_handler = ignore_signal}; /* no SA_RESTART */
    sigaction(WAKE_SIGNAL, &action, NULL);
    if (!shutdown->terminal)
        signal(SIGHUP, SIG_DFL); /* whoever ignored it did not mean logs; it is blocked */
    int result = pthread_create(&shutdown->signal_thread, NULL, wait_for_signals, shutdown);
    if (result)
        return -result;
    shutdown->signal_thread_runs = true;
    sigset_t wake;
    sigemptyset(&wake);
    sigaddset(&wake, WAKE_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
    return 0;
}

/* Once the loop is left the thread is joined, and must not be named any more. */
static void send_to_signal_thread(struct shutdown *shutdown, int number)
{
    pthread_mutex_lock(&shutdown->mutex);
    if (!shutdown->loop_left)
        pthread_kill(shutdown->signal_thread, number); /* it waits with sigwait */
    pthread_mutex_unlock(&shutdown->mutex);
}

void shutdown_request(struct shutdown *shutdown)
{
    shutdown->asked = true;
    send_to_signal_thread(shutdown, SIGTERM);
}

void shutdown_told(struct shutdown *shutdown, unsigned signals)
{
    shutdown->told = signals;
    send_to_signal_thread(shutdown, SIGTERM);
}

_Noreturn void shutdown_yield(struct shutdown *shutdown)
{
    int result = quiesce(shutdown->filesystem, YIELD_MS);
    log_line(LOG_NOTICE, "mount", "event=yielded drained=%s", result ? "no" : "yes");
    log_writer_end();
    for (;;)
        kill(getpid(), SIGKILL); /* nothing is to be tidied up that the next one goes on with */
}

void shutdown_hang_up(struct shutdown *shutdown)
{
    send_to_signal_thread(shutdown, SIGHUP);
}

void shutdown_loop_left(struct shutdown *shutdown)
{
    pthread_mutex_lock(&shutdown->mutex);
    shutdown->loop_left = true;
    pthread_cond_signal(&shutdown->changed);
    pthread_mutex_unlock(&shutdown->mutex);
    if (shutdown->signal_thread_runs) {
        pthread_kill(shutdown->signal_thread, END_SIGNAL);
        pthread_join(shutdown->signal_thread, NULL);
        shutdown->signal_thread_runs = false;
    }
    struct filesystem *filesystem = shutdown->filesystem;
    if (shutdown->quiesced || !filesystem->engine || quiesce(filesystem, AFTER_LOOP_MS) == 0)
        return;
    abort_connection(shutdown, "stores did not end");
    quiesce(filesystem, AFTER_LOOP_MS);
}

/* The engine's end, in a thread of its own since a source can hang for ever. Lives as long as the
 * process when it is never done. */
struct stopping {
    struct unshard_engine *engine;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool done; /* protected by mutex */
};

static void *stop_engine(void *argument)
{
    struct stopping *stopping = argument;
    unshard_engine_stop(stopping->engine);
    pthread_mutex_lock(&stopping->mutex);
    stopping->done = true;
    pthread_cond_signal(&stopping->changed);
    pthread_mutex_unlock(&stopping->mutex);
    return NULL;
}

static bool wait_stopped(struct stopping *stopping, unsigned milliseconds)
{
    struct timespec deadline = monotonic_deadline(milliseconds);
    int result = 0;
    pthread_mutex_lock(&stopping->mutex);
    while (!stopping->done && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&stopping->changed, &stopping->mutex, &deadline);
    bool done = stopping->done;
    pthread_mutex_unlock(&stopping->mutex);
    return done;
}

static struct stopping *begin_stop(struct unshard_engine *engine)
{
    struct stopping *stopping = calloc(1, sizeof *stopping);
    if (!stopping)
        return NULL;
    stopping->engine = engine;
    pthread_mutex_init(&stopping->mutex, NULL);
    monotonic_condition_init(&stopping->changed);
    if (pthread_create(&stopping->thread, NULL, stop_engine, stopping)) {
        free(stopping);
        return NULL;
    }
    return stopping;
}

/* Who waits for the source is answered, and who looks at it uses tree and engine, so they go first.
 * false: storage does not answer, and a thread hangs there. */
static bool end_waiting(struct filesystem *filesystem)
{
    if (waiting_close(filesystem->waiting, AFTER_LOOP_MS))
        return false;
    waiting_room_free(filesystem->waiting);
    filesystem->waiting = NULL;
    return true;
}

/* The control thread uses the engine, so it goes before that. false: it hangs. */
static bool end_control(struct filesystem *filesystem)
{
    if (control_quiesce(filesystem->control, AFTER_LOOP_MS))
        return false;
    control_free(filesystem->control);
    filesystem->control = NULL;
    return true;
}

bool shutdown_finish(struct shutdown *shutdown)
{
    if (!end_waiting(shutdown->filesystem)) {
        session_unmount(shutdown->filesystem);
        log_line(LOG_ERR, "mount",
                 "event=stop-timeout reason=\"a look at the source does not "
                 "return\"");
        return false;
    }
    if (!end_control(shutdown->filesystem)) {
        session_unmount(shutdown->filesystem);
        log_line(LOG_ERR, "mount", "event=stop-timeout reason=\"dropping pages does not return\"");
        return false;
    }
    /* Reads are answered through the connection, so the engine ends first if it can; when it
     * cannot, unmounting frees the readers, and the rest is given a last chance. */
    struct stopping *stopping = begin_stop(shutdown->filesystem->engine);
    bool stopped = stopping && wait_stopped(stopping, STOP_BEFORE_UNMOUNT_MS);
    session_unmount(shutdown->filesystem);
    if (!stopped)
        stopped = stopping && wait_stopped(stopping, STOP_AFTER_UNMOUNT_MS);
    if (!stopped) {
        log_line(LOG_ERR, "mount", "event=stop-timeout reason=\"a source read does not return\"");
        return false;
    }
    pthread_join(stopping->thread, NULL);
    pthread_cond_destroy(&stopping->changed);
    pthread_mutex_destroy(&stopping->mutex);
    free(stopping);
    shutdown->filesystem->engine = NULL;
    return true;
}

void shutdown_release(struct shutdown *shutdown)
{
    pthread_cond_destroy(&shutdown->changed);
    pthread_mutex_destroy(&shutdown->mutex);
}
