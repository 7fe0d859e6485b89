/* SPDX-License-Identifier: MIT */
#include "fs/mount/supervised.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/mount/supervisor.h"

#define KNOWN_MS 5000
#define LET_GO_MS 2000u
/* Between two replacements, when one ends after the other. */
#define REPLACE_MS 100

static int pidfd_of(pid_t process)
{
    int fd = (int)syscall(SYS_pidfd_open, process, 0);
    return fd < 0 ? -errno : fd;
}

/* ---- one supervisor; the caller holds the mutex, or is alone -----------------------------------
 */

static void forget(struct supervised *supervised)
{
    if (supervised->process >= 0) {
        siginfo_t info;
        waitid(P_PIDFD, (id_t)supervised->process, &info, WEXITED | WNOHANG);
        close(supervised->process);
    }
    if (supervised->talk >= 0)
        close(supervised->talk);
    supervised->process = supervised->talk = -1;
    supervised->known = false;
}

/* Once the daemon that says HELLO is known, it is watched. */
static int introduce(struct supervised *supervised)
{
    struct succession_message message;
    int none[HANDED_COUNT];
    int result = succession_hand(supervised->talk, WORD_HELLO, supervised->generation,
                                 supervised->handed, HANDED_COUNT);
    if (!result)
        result = succession_hear(supervised->talk, &message, none, KNOWN_MS);
    if (!result && message.word != WORD_KNOWN)
        result = message.word == WORD_ENDING ? -EINTR : -EPIPE;
    if (!result)
        result = succession_say(supervised->talk, WORD_ALIVE, 0);
    if (!result && supervised->serving)
        result = succession_say(supervised->talk, WORD_SERVING, 0);
    supervised->known = result == 0;
    return result;
}

static int start_one(struct supervised *supervised)
{
    pid_t process = supervisor_start(&supervised->talk);
    if (process < 0)
        return process;
    supervised->process = pidfd_of(process);
    int result = supervised->process < 0 ? supervised->process : introduce(supervised);
    if (!result)
        return 0;
    kill(process, SIGKILL);
    waitpid(process, NULL, 0);
    forget(supervised);
    return result;
}

/* ---- listening ---------------------------------------------------------------------------------
 */

static void replace(struct supervised *supervised)
{
    pthread_mutex_lock(&supervised->mutex);
    forget(supervised);
    int result = 0;
    bool wanted = !supervised->leaving && !supervised->stopping;
    if (wanted)
        result = start_one(supervised);
    pthread_cond_broadcast(&supervised->changed);
    pthread_mutex_unlock(&supervised->mutex);
    if (!wanted)
        return;
    if (result)
        log_line(LOG_ERR, "monitor", "event=monitor-lost errno=%d", -result);
    else
        log_line(LOG_WARNING, "monitor",
                 "event=monitor-replaced message=\"the process that watches over the daemon had "
                 "ended; another one does it now\"");
    struct pollfd stop = {.fd = supervised->wake, .events = POLLIN};
    poll(&stop, 1, REPLACE_MS);
}

static void hear(struct supervised *supervised, int talk)
{
    struct succession_message message;
    int handed[HANDED_COUNT];
    if (succession_hear(talk, &message, handed, 0))
        return; /* the end of the process is told by its pidfd */
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        if (handed[i] >= 0)
            close(handed[i]);
    if (message.word == WORD_ENDING) {
        supervised->ending(supervised->context, message.number);
    } else if (message.word == WORD_HANGUP) {
        supervised->hangup(supervised->context);
    } else if (message.word == WORD_YIELD) {
        supervised->yield(supervised->context);
    } else if (message.word == WORD_LET_GO) {
        pthread_mutex_lock(&supervised->mutex);
        supervised->let_go = true;
        pthread_cond_broadcast(&supervised->changed);
        pthread_mutex_unlock(&supervised->mutex);
    }
}

/* Only this thread closes the descriptors that it waits for. */
static void *listen_to_it(void *argument)
{
    struct supervised *supervised = argument;
    for (;;) {
        struct pollfd entries[] = {{.fd = supervised->talk, .events = POLLIN},
                                   {.fd = supervised->process, .events = POLLIN},
                                   {.fd = supervised->wake, .events = POLLIN}};
        bool none = supervised->process < 0; /* it could not be started: once more */
        if (poll(entries, 3, none ? REPLACE_MS : -1) < 0)
            continue;
        if (entries[2].revents)
            return NULL;
        if (none || entries[1].revents)
            replace(supervised);
        else if (entries[0].revents)
            hear(supervised, supervised->talk);
    }
}

int supervised_listen(struct supervised *supervised)
{
    supervised->wake = eventfd(0, EFD_CLOEXEC);
    if (supervised->wake < 0)
        return -errno;
    int result = pthread_create(&supervised->listener, NULL, listen_to_it, supervised);
    supervised->listener_runs = result == 0;
    return -result;
}

/* ---- beginning ---------------------------------------------------------------------------------
 */

static void begin(struct supervised *supervised, struct unshard_keep *keep,
                  const int handed[HANDED_COUNT])
{
    supervised->keep = keep;
    supervised->life = life_of(keep);
    memcpy(supervised->handed, handed, sizeof supervised->handed);
    supervised->talk = supervised->process = supervised->wake = -1;
    pthread_mutex_init(&supervised->mutex, NULL);
    monotonic_condition_init(&supervised->changed);
}

static int set_lives_error(struct unshard_error *error, int result)
{
    return unshard_error_set(error, "monitor", -result, "cannot start the supervisor: %s",
                             strerror(-result));
}

int supervised_begin(struct supervised *supervised, struct unshard_keep *keep, int talk,
                     pid_t supervisor, const int handed[HANDED_COUNT], struct unshard_error *error)
{
    begin(supervised, keep, handed);
    int result = life_begin(supervised->life, 0);
    if (!result && talk < 0) {
        result = start_one(supervised);
    } else if (!result) {
        supervised->talk = talk;
        supervised->process = pidfd_of(supervisor);
        result = supervised->process < 0 ? supervised->process : introduce(supervised);
    }
    return result ? set_lives_error(error, result) : 0;
}

int supervised_continue(struct supervised *supervised, struct unshard_keep *keep,
                        const struct succession *succession, struct unshard_error *error)
{
    begin(supervised, keep, succession->handed);
    supervised->generation = succession->generation;
    supervised->talk = succession->talk;
    supervised->process = pidfd_of(getppid());
    int result = life_begin(supervised->life, succession->generation);
    if (result)
        return set_lives_error(error, result);
    supervised->known = succession_say(supervised->talk, WORD_ALIVE, 0) == 0;
    if (supervised->known)
        return 0;
    forget(supervised); /* it has died since */
    result = start_one(supervised);
    return result ? set_lives_error(error, result) : 0;
}

void supervised_bind(struct supervised *supervised)
{
    struct pollfd entry = {.fd = supervised->talk};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (poll(&entry, 1, 0) != 0) /* it has ended before */
        _exit(1);
}

static void say(struct supervised *supervised, enum succession_word word, uint32_t number)
{
    pthread_mutex_lock(&supervised->mutex);
    supervised->serving |= word == WORD_SERVING;
    if (word == WORD_SERVING)
        supervised->life->served = 1;
    supervised->leaving |= word == WORD_LEAVING;
    if (supervised->known)
        succession_say(supervised->talk, word, number);
    pthread_mutex_unlock(&supervised->mutex);
}

void supervised_serving(struct supervised *supervised)
{
    say(supervised, WORD_SERVING, 0);
}

void supervised_crashing(const struct supervised *supervised)
{
    succession_say(supervised->talk, WORD_CRASHING, 0); /* no mutex: who has it may be dead */
}

int supervised_upgrade(struct supervised *supervised, int program)
{
    int result = -ESRCH;
    pthread_mutex_lock(&supervised->mutex);
    if (supervised->known && !supervised->leaving)
        result = succession_hand(supervised->talk, WORD_UPGRADE, 0, &program, 1);
    pthread_mutex_unlock(&supervised->mutex);
    return result;
}

void supervised_failing(struct supervised *supervised, bool hopeless)
{
    if (supervised->keep)
        say(supervised, WORD_FAILING, hopeless);
}

/* ---- leaving -----------------------------------------------------------------------------------
 */

/* One that does not answer is ended: it would keep the connection from ending. */
static void end_it(struct supervised *supervised)
{
    struct pollfd entry = {.fd = supervised->process, .events = POLLIN};
    syscall(SYS_pidfd_send_signal, supervised->process, SIGKILL, NULL, 0);
    poll(&entry, 1, (int)LET_GO_MS);
}

void supervised_leave(struct supervised *supervised)
{
    if (!supervised->keep)
        return;
    say(supervised, WORD_LEAVING, 0);
    struct timespec deadline = monotonic_deadline(LET_GO_MS);
    int result = supervised->listener_runs ? 0 : ETIMEDOUT;
    pthread_mutex_lock(&supervised->mutex);
    while (!supervised->let_go && supervised->process >= 0 && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&supervised->changed, &supervised->mutex, &deadline);
    if (!supervised->let_go && supervised->process >= 0)
        end_it(supervised);
    pthread_mutex_unlock(&supervised->mutex);
}

void supervised_stop(struct supervised *supervised)
{
    if (!supervised->keep)
        return;
    pthread_mutex_lock(&supervised->mutex);
    supervised->stopping = true;
    pthread_mutex_unlock(&supervised->mutex);
    if (supervised->listener_runs && eventfd_write(supervised->wake, 1) == 0)
        pthread_join(supervised->listener, NULL);
    say(supervised, WORD_DONE, 0);
    forget(supervised);
    if (supervised->wake >= 0)
        close(supervised->wake);
    pthread_cond_destroy(&supervised->changed);
    pthread_mutex_destroy(&supervised->mutex);
    supervised->keep = NULL;
}
