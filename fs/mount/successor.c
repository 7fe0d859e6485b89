/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/monotonic.h"
#include "fs/host/spawn.h"
#include "fs/mount/supervision.h"

#define FAILURES_MS 60000
#define MOST_UNSERVED 10u

/* ---- the end of a daemon -----------------------------------------------------------------------
 */

struct watch {
    struct life *life;
    uint32_t generation;
    int tell;
};

static void *watch_one(void *argument)
{
    struct watch *watch = argument;
    life_wait_for_end(watch->life, watch->generation);
    if (write(watch->tell, &watch->generation, sizeof watch->generation) < 0)
        errno = 0; /* the pidfd tells as well, later */
    free(watch);
    return NULL;
}

/* Where there is no thread for it its pidfd tells. */
void successor_watch(struct supervisor *supervisor)
{
    pthread_t thread;
    struct watch *watch = malloc(sizeof *watch);
    if (!watch)
        return;
    *watch = (struct watch){supervisor->life, supervisor->generation, supervisor->ends[1]};
    if (pthread_create(&thread, NULL, watch_one, watch))
        free(watch);
    else
        pthread_detach(thread);
}

/* How it ended, when it is a child that has. */
bool successor_reap(struct supervisor *supervisor, siginfo_t *info)
{
    *info = (siginfo_t){0};
    if (waitid(P_PIDFD, (id_t)supervisor->process, info, WEXITED | WNOHANG) || info->si_pid == 0)
        return false;
    bool exited = info->si_code == CLD_EXITED;
    supervisor->status = exited ? info->si_status : 128 + info->si_status;
    return true;
}

void successor_forget_gone(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < SUCCESSION_OLD; i++) {
        int old = supervisor->old[i];
        if (old < 0 || !supervision_is_gone(old))
            continue;
        siginfo_t info;
        waitid(P_PIDFD, (id_t)old, &info, WEXITED | WNOHANG);
        close(old);
        supervisor->old[i] = -1;
    }
}

/* Whether one more daemon may be old: a generation's place is free. */
bool successor_make_old(struct supervisor *supervisor)
{
    unsigned used = 0, free_place = SUCCESSION_OLD;
    successor_forget_gone(supervisor);
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        if (supervisor->old[i] >= 0)
            used++;
        else
            free_place = i;
    if (used + 1 >= LIFE_GENERATIONS)
        return false;
    supervisor->old[free_place] = supervisor->process;
    supervisor->process = -1;
    return true;
}

/* ---- the next daemon ---------------------------------------------------------------------------
 */

void successor_note_end(struct supervisor *supervisor, enum life_end end, int number)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    supervisor->life->last_end = end;
    supervisor->life->last_signal = (uint32_t)number;
    supervisor->life->last_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    supervisor->life->restarts++;
}

/* Whether there were too many of a kind that the next one would meet, too. */
bool successor_too_many(struct supervisor *supervisor, enum life_end end)
{
    int64_t now = monotonic_ms();
    supervisor->unserved = supervisor->serving ? 0 : supervisor->unserved + 1;
    if (end == LIFE_KILLED || end == LIFE_UPGRADED)
        return supervisor->unserved >= MOST_UNSERVED;
    memmove(supervisor->failures + 1, supervisor->failures,
            (SUPERVISOR_MOST_FAILURES - 1) * sizeof *supervisor->failures);
    supervisor->failures[0] = now;
    int64_t earliest = supervisor->failures[SUPERVISOR_MOST_FAILURES - 1];
    return earliest != 0 && now - earliest < FAILURES_MS;
}

enum life_end successor_end_of(const struct supervisor *supervisor, bool reaped,
                               const siginfo_t *info, int *number)
{
    *number = life_crash(supervisor->life, supervisor->generation);
    if (*number != 0)
        return LIFE_CRASHED;
    if (supervisor->program >= 0 && supervisor->serving)
        return LIFE_UPGRADED;
    if (supervisor->failed)
        return LIFE_FAILED;
    if (!reaped || info->si_code == CLD_EXITED || info->si_status == SIGKILL)
        return LIFE_KILLED;
    *number = info->si_status;
    return LIFE_CRASHED;
}

static struct succession handing_on(const struct supervisor *supervisor, enum succession_role role)
{
    struct succession next = succession_none(role);
    memcpy(next.handed, supervisor->handed, sizeof next.handed);
    memcpy(next.old, supervisor->old, sizeof next.old);
    return next;
}

static void name_program(const struct supervisor *supervisor, char path[32])
{
    if (supervisor->program >= 0)
        snprintf(path, 32, "/proc/self/fd/%d", supervisor->program);
    else
        snprintf(path, 32, SUPERVISOR_PROGRAM);
}

int successor_start(struct supervisor *supervisor)
{
    int ends[2], descriptors[SUCCESSION_DESCRIPTORS];
    char variable[SUCCESSION_VARIABLE], program[32];
    int result = succession_pair(ends);
    if (result)
        return result;
    struct succession next = handing_on(supervisor, ROLE_DAEMON);
    next.talk = ends[1];
    next.generation = supervisor->generation + 1;
    succession_write(&next, variable);
    size_t count = succession_descriptors(&next, descriptors);
    name_program(supervisor, program);
    pid_t process = spawn_process(program, (char *const *)(uintptr_t)supervisor->start.argv,
                                  variable, descriptors, count);
    close(ends[1]);
    if (process < 0) {
        close(ends[0]);
        return process;
    }
    supervisor->generation++;
    supervisor->talk = ends[0];
    supervisor->daemon = process;
    supervisor->process = supervision_pidfd(process);
    supervisor->alive = supervisor->serving = supervisor->failed = supervisor->crashing = false;
    supervisor->life->generation = supervisor->generation;
    if (supervisor->endings > 0) /* the one before may not have got to it */
        succession_say(supervisor->talk, WORD_ENDING, supervisor->endings);
    return 0;
}

/* The program that its daemon is now, with all that it has. Comes back when that fails: then this
 * one goes on. */
void successor_become_program(struct supervisor *supervisor)
{
    static const char *const own_name[] = {"unshard-monitor", NULL};
    const char *const *arguments = supervisor->foreground ? supervisor->start.argv : own_name;
    int descriptors[SUCCESSION_DESCRIPTORS];
    char variable[SUCCESSION_VARIABLE], program[32];
    struct succession next = handing_on(supervisor, ROLE_UPGRADED);
    next.talk = supervisor->talk;
    next.generation = supervisor->generation;
    next.daemon = supervisor->daemon;
    next.foreground = supervisor->foreground;
    succession_write(&next, variable);
    size_t count = succession_descriptors(&next, descriptors);
    for (size_t i = 0; i < count; i++)
        fcntl(descriptors[i], F_SETFD, 0);
    name_program(supervisor, program);
    if (putenv(variable) == 0)
        execv(program, (char *const *)(uintptr_t)arguments);
    succession_take(&next); /* closed on exec again, and not in the environment */
    supervision_close(&supervisor->program, 1);
}

/* One that was to be the next one and has not served is not tried again. */
int successor_start_next(struct supervisor *supervisor, bool served)
{
    if (!served)
        supervision_close(&supervisor->program, 1);
    int result = successor_start(supervisor);
    if (result && supervisor->program >= 0) {
        supervision_close(&supervisor->program, 1);
        result = successor_start(supervisor);
    }
    return result;
}
