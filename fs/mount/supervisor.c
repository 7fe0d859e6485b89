/* SPDX-License-Identifier: MIT */
#include "fs/mount/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/mountpoint.h"
#include "fs/host/server.h"
#include "fs/host/service_manager.h"
#include "fs/host/spawn.h"
#include "fs/mount/kept_mount.h"
#include "fs/mount/life.h"
#include "fs/mount/refuser.h"
#include "fs/mount/start.h"
#include "fs/mount/succession.h"
#include "fs/mount/supervision.h"

#define DEAD_MS 2000
#define CRASH_MS 2000u
#define CRASH_STEP_MS 2
/* What an orderly end takes at most, once the main thread is there no more. */
#define GONE_MS 10000

/* ---- the end of the mount ----------------------------------------------------------------------
 */

/* A mount whose connection goes on must stay where it can be found: see mountpoint_detach. */
static void take_mount_away(struct supervisor *supervisor)
{
    const char *path = supervisor->start.mountpoint;
    unsigned connection = supervisor->start.connection;
    bool ended = mountpoint_abort(path, connection, supervisor->abort_fd) == 0;
    if (!ended)
        ended = mountpoint_is(path, connection) && server_ask(path, DEAD_MS) == SERVER_GONE;
    if (ended)
        mountpoint_detach(path, connection);
}

static bool connection_has_ended(const struct supervisor *supervisor)
{
    struct pollfd entry = {.fd = supervisor->handed[HANDED_DEVICE]};
    return entry.fd < 0 || (poll(&entry, 1, 0) > 0 && (entry.revents & (POLLERR | POLLNVAL)));
}

static bool all_are_gone(void *context)
{
    struct supervisor *supervisor = context;
    successor_forget_gone(supervisor);
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        if (supervisor->old[i] >= 0)
            return false;
    return supervision_is_gone(supervisor->process);
}

/* Nobody else may hold the device when the connection is to end, nor go on with what has ended. */
static void let_manager_forget(struct supervisor *supervisor)
{
    if (supervisor->keeps && !supervisor->start.private)
        kept_mount_forget();
    supervisor->keeps = false;
}

static void say_that_it_stops(struct supervisor *supervisor)
{
    if (!supervisor->stopping && !supervisor->start.private)
        service_manager_tell("STOPPING=1");
    supervisor->stopping = true;
}

static void refuse_all(struct supervisor *supervisor)
{
    struct refusal refusal = {.device = supervisor->handed[HANDED_DEVICE],
                              .journal_area = life_journal_area(supervisor->keep),
                              .generation = supervisor->generation + 1,
                              .are_gone = all_are_gone,
                              .context = supervisor};
    supervisor->state = REFUSING;
    supervisor->status = supervisor->status ? supervisor->status : 1;
    refuse_until_gone(&refusal);
    let_manager_forget(supervisor);
    supervision_close(supervisor->handed, HANDED_COUNT);
    take_mount_away(supervisor);
}

/* Of the daemon, once. false: that is the end of this process, too. */
static bool on_end(struct supervisor *supervisor)
{
    siginfo_t info;
    int number;
    bool reaped = successor_reap(supervisor, &info);
    supervision_close(&supervisor->talk, 1);
    if (supervisor->state == WAITING)
        return false;
    if (supervisor->state == LEAVING || connection_has_ended(supervisor)) {
        struct pollfd entry = {.fd = supervisor->process, .events = POLLIN};
        if (!reaped && poll(&entry, 1, GONE_MS) > 0)
            successor_reap(supervisor, &info);
        supervision_close(supervisor->handed, HANDED_COUNT);
        if (!supervisor->done) /* another one may have its number and its place by now */
            take_mount_away(supervisor);
        return false;
    }
    enum life_end end = successor_end_of(supervisor, reaped, &info, &number);
    successor_note_end(supervisor, end, number);
    bool wanted = supervisor->life->served && !supervisor->refuses;
    if (!wanted || successor_too_many(supervisor, end) || !successor_make_old(supervisor) ||
        successor_start_next(supervisor, supervisor->serving)) {
        refuse_all(supervisor);
        return false;
    }
    return true;
}

/* ---- what the daemon says ----------------------------------------------------------------------
 */

/* What a daemon has handed over, or this process has kept for itself. */
static int take_handed(struct supervisor *supervisor, uint32_t generation,
                       const int handed[HANDED_COUNT])
{
    struct unshard_error error;
    struct unshard_keep *keep;
    int result = unshard_keep_look(handed[HANDED_KEEP], life_area_bytes(), &keep, &error);
    if (result)
        return result;
    result = start_read(keep, &supervisor->start);
    if (result) {
        unshard_keep_close(keep);
        return result;
    }
    memcpy(supervisor->handed, handed, sizeof supervisor->handed);
    supervisor->keep = keep;
    supervisor->life = life_of(keep);
    supervisor->generation = generation;
    supervisor->abort_fd = mountpoint_open_abort(supervisor->start.connection);
    supervisor->state = WATCHING;
    return 0;
}

static void on_hello(struct supervisor *supervisor, uint32_t generation, int handed[HANDED_COUNT])
{
    if (supervisor->keep || handed[HANDED_SOURCE] < 0 ||
        take_handed(supervisor, generation, handed)) {
        supervision_close(handed, HANDED_COUNT);
        return;
    }
    if (supervisor->keeps && !supervisor->start.private) /* before the kernel is greeted */
        kept_mount_leave(supervisor->handed,
                         strcmp(supervisor->start.source, supervisor->start.mountpoint) == 0);
    succession_say(supervisor->talk, WORD_KNOWN, 0);
}

static void on_alive(struct supervisor *supervisor)
{
    if (supervisor->alive || !supervisor->keep)
        return;
    supervisor->alive = true;
    successor_watch(supervisor);
}

static void say_that_it_serves(const struct supervisor *supervisor)
{
    char state[64];
    snprintf(state, sizeof state, "READY=1\nMAINPID=%d", (int)getpid());
    if (!supervisor->start.private)
        service_manager_tell(state);
}

static void on_serving(struct supervisor *supervisor)
{
    supervisor->serving = true;
    say_that_it_serves(supervisor);
    if (supervisor->program >= 0)
        successor_become_program(supervisor);
}

static void on_upgrade(struct supervisor *supervisor, int handed[HANDED_COUNT])
{
    if (supervisor->state != WATCHING || !supervisor->serving || handed[0] < 0)
        return;
    supervision_close(&supervisor->program, 1);
    supervisor->program = handed[0];
    handed[0] = -1;
    succession_say(supervisor->talk, WORD_YIELD, 0);
}

static void on_leaving(struct supervisor *supervisor)
{
    supervision_close(supervisor->handed, HANDED_COUNT);
    supervisor->state = LEAVING;
    let_manager_forget(supervisor);
    succession_say(supervisor->talk, WORD_LET_GO, 0);
    if (supervisor->keep)
        say_that_it_stops(supervisor);
}

static void on_message(struct supervisor *supervisor)
{
    struct succession_message message;
    int handed[HANDED_COUNT];
    int result = succession_hear(supervisor->talk, &message, handed, 0);
    if (result == -EPIPE)
        supervision_close(&supervisor->talk, 1);
    if (result)
        return;
    switch ((enum succession_word)message.word) {
    case WORD_HELLO:
        on_hello(supervisor, message.number, handed);
        return;
    case WORD_ALIVE:
        on_alive(supervisor);
        break;
    case WORD_SERVING:
        on_serving(supervisor);
        break;
    case WORD_CRASHING:
        supervisor->crashing = true;
        break;
    case WORD_UPGRADE:
        on_upgrade(supervisor, handed);
        break;
    case WORD_LEAVING:
        on_leaving(supervisor);
        break;
    case WORD_DONE:
        supervisor->done = true;
        break;
    case WORD_FAILING:
        supervisor->failed = true;
        supervisor->refuses = message.number != 0;
        break;
    default:
        break; /* what only a daemon hears */
    }
    supervision_close(handed, HANDED_COUNT);
}

/* ---- signals -----------------------------------------------------------------------------------
 */

/* As the first process of a container it gets the children of others, too. */
static void reap_others(const struct supervisor *supervisor)
{
    siginfo_t info = {0};
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
           info.si_pid != supervisor->daemon) {
        waitpid(info.si_pid, NULL, 0);
        info = (siginfo_t){0};
    }
}

/* The end of a terminal is told to the leader of its session alone. */
static bool is_for_leader(const struct signalfd_siginfo *info)
{
    return info->ssi_signo == SIGHUP && getsid(0) == getpid();
}

/* In the foreground they are for whoever serves. What a terminal sends to all comes there by
 * itself. */
static void on_signal(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    if (read(supervisor->signals, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGCHLD)
        reap_others(supervisor);
    else if (!supervisor->foreground || (info.ssi_code == SI_KERNEL && !is_for_leader(&info)))
        return;
    else if (info.ssi_signo == SIGHUP)
        succession_say(supervisor->talk, WORD_HANGUP, 0);
    else {
        say_that_it_stops(supervisor);
        succession_say(supervisor->talk, WORD_ENDING, ++supervisor->endings);
    }
}

static void prepare_signals(struct supervisor *supervisor)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

/* Whether the daemon has ended, as its mutex tells. */
static bool has_been_told(struct supervisor *supervisor)
{
    uint32_t generation;
    return read(supervisor->ends[0], &generation, sizeof generation) == sizeof generation &&
           generation == supervisor->generation;
}

/* Whether its memory is about to be written out: from then on no thread of it runs but in the
 * kernel.
 */
static bool is_dumping(pid_t process)
{
    char path[32], line[128];
    bool dumping = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    FILE *status = fopen(path, "re");
    while (status && !dumping && fgets(line, sizeof line, status))
        dumping = strncmp(line, "CoreDumping:", 12) == 0 && strchr(line, '1');
    if (status)
        fclose(status);
    return dumping;
}

/* One that has said that it crashes still runs: another one must not begin beside it. */
static void wait_for_crash(struct supervisor *supervisor)
{
    bool over = false;
    for (unsigned waited = 0; !over && waited < CRASH_MS; waited += CRASH_STEP_MS) {
        over = has_been_told(supervisor) || supervision_is_gone(supervisor->process) ||
               is_dumping(supervisor->daemon);
        poll(NULL, 0, CRASH_STEP_MS);
    }
}

static void watch_daemons(struct supervisor *supervisor)
{
    for (;;) {
        struct pollfd entries[] = {{.fd = supervisor->talk, .events = POLLIN},
                                   {.fd = supervisor->ends[0], .events = POLLIN},
                                   {.fd = supervisor->process, .events = POLLIN},
                                   {.fd = supervisor->signals, .events = POLLIN}};
        if (poll(entries, 4, -1) <= 0)
            continue;
        if (entries[0].revents) {
            on_message(supervisor); /* all that it said comes before its end */
            if (supervisor->crashing)
                wait_for_crash(supervisor);
            bool ended = supervisor->crashing || (supervisor->talk < 0 && supervisor->process < 0);
            if (ended && !on_end(supervisor))
                return;
            continue;
        }
        if (entries[3].revents)
            on_signal(supervisor);
        bool told = entries[1].revents && has_been_told(supervisor);
        if ((told || entries[2].revents) && !on_end(supervisor))
            return;
    }
}

/* Its exit status. */
static int watch(struct supervisor *supervisor)
{
    watch_daemons(supervisor);
    let_manager_forget(supervisor);
    return supervisor->status;
}

/* keeps: a service manager, what it is left. */
static bool begin(struct supervisor *supervisor, int talk, bool foreground, bool keeps)
{
    *supervisor = (struct supervisor){.talk = talk,
                                      .foreground = foreground,
                                      .keeps = keeps,
                                      .process = -1,
                                      .abort_fd = -1,
                                      .program = -1,
                                      .status = 1};
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        supervisor->handed[i] = -1;
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        supervisor->old[i] = -1;
    prctl(PR_SET_NAME, "unshard-monitor");
    prepare_signals(supervisor);
    return pipe2(supervisor->ends, O_CLOEXEC | O_NONBLOCK) == 0;
}

/* A child of this process, or the one that has started it, which may have died since: then what it
 * has said is in the socket, and its number may be another one's. */
static void know_daemon(struct supervisor *supervisor, pid_t daemon, bool is_parent)
{
    supervisor->daemon = daemon;
    supervisor->process = supervision_pidfd(daemon);
    if (is_parent && getppid() != daemon)
        supervision_close(&supervisor->process, 1);
}

int supervisor_run(int talk, pid_t daemon, bool keeps)
{
    static struct supervisor supervisor; /* threads use it to the end of the process */
    if (!begin(&supervisor, talk, true, keeps))
        return 1;
    know_daemon(&supervisor, daemon, false);
    return watch(&supervisor);
}

/* The daemons of before are gone, and what they died of with whoever would have known. */
int supervisor_resume(const int handed[HANDED_COUNT])
{
    static struct supervisor supervisor; /* threads use it to the end of the process */
    if (!begin(&supervisor, -1, true, true) || take_handed(&supervisor, 0, handed))
        return 1;
    supervisor.generation = supervisor.life->generation;
    int number = life_crash(supervisor.life, supervisor.generation);
    successor_note_end(&supervisor, number ? LIFE_CRASHED : LIFE_KILLED, number);
    if (successor_start(&supervisor) == 0)
        return watch(&supervisor);
    refuse_all(&supervisor);
    return supervisor.status;
}

/* ---- how it comes to be ------------------------------------------------------------------------
 */

pid_t supervisor_start(int *talk)
{
    static char *const arguments[] = {"unshard-monitor", NULL};
    int ends[2];
    char variable[SUCCESSION_VARIABLE];
    int result = succession_pair(ends);
    if (result)
        return result;
    struct succession given = succession_none(ROLE_SUPERVISOR);
    given.talk = ends[1];
    given.daemon = getpid();
    succession_write(&given, variable);
    pid_t process = spawn_process(SUPERVISOR_PROGRAM, arguments, variable, &ends[1], 1);
    close(ends[1]);
    if (process < 0)
        close(ends[0]);
    else
        *talk = ends[0];
    return process;
}

/* One that a daemon has started. */
static int run_started(const struct succession *given)
{
    static struct supervisor supervisor; /* threads use it to the end of the process */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd);
    close_others(STDERR_FILENO + 1, given->talk, -1);
    if (!begin(&supervisor, given->talk, false, false))
        return 1;
    know_daemon(&supervisor, given->daemon, true);
    return watch(&supervisor);
}

/* The daemon serves and lives, since that is what this process has waited for. */
static int run_upgraded(const struct succession *given)
{
    static struct supervisor supervisor; /* threads use it to the end of the process */
    if (!begin(&supervisor, given->talk, given->foreground, given->foreground))
        return 1;
    know_daemon(&supervisor, given->daemon, false);
    memcpy(supervisor.old, given->old, sizeof supervisor.old);
    if (take_handed(&supervisor, given->generation, given->handed))
        return 1; /* its daemon starts another one */
    supervisor.serving = true;
    on_alive(&supervisor);
    return watch(&supervisor);
}

bool supervisor_is_this(int *status)
{
    struct succession given;
    enum succession_role role = succession_role();
    if (role != ROLE_SUPERVISOR && role != ROLE_UPGRADED)
        return false;
    succession_take(&given);
    *status = role == ROLE_UPGRADED ? run_upgraded(&given) : run_started(&given);
    return true;
}
