/* SPDX-License-Identifier: MIT */
#include "fs/mount/life.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/kernel/apart.h"
#include "fs/kernel/journal.h"

#define PAGE 4096u
#define SIGNALS 65

static size_t own_bytes(void)
{
    return (sizeof(struct life) + PAGE - 1) / PAGE * PAGE;
}

size_t life_area_bytes(void)
{
    return own_bytes() + journal_area_bytes();
}

struct life *life_of(struct unshard_keep *keep)
{
    return unshard_keep_area(keep);
}

void *life_journal_area(struct unshard_keep *keep)
{
    return (char *)unshard_keep_area(keep) + own_bytes();
}

int life_begin(struct life *life, unsigned generation)
{
    pthread_mutex_t *mutex = &life->alive[generation % LIFE_GENERATIONS];
    pthread_mutexattr_t attributes;
    life->crash[generation % LIFE_GENERATIONS] = 0;
    memset(mutex, 0, sizeof *mutex); /* whatever an earlier process has left there */
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    int result = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (result == 0)
        result = pthread_mutex_lock(mutex);
    return -result;
}

/* result: of having tried to lock it. */
static void give_back(pthread_mutex_t *mutex, int result)
{
    if (result == EOWNERDEAD)
        pthread_mutex_consistent(mutex);
    if (result == 0 || result == EOWNERDEAD)
        pthread_mutex_unlock(mutex);
}

void life_wait_for_end(struct life *life, unsigned generation)
{
    pthread_mutex_t *mutex = &life->alive[generation % LIFE_GENERATIONS];
    give_back(mutex, pthread_mutex_lock(mutex));
}

bool life_has_ended(struct life *life, unsigned generation)
{
    pthread_mutex_t *mutex = &life->alive[generation % LIFE_GENERATIONS];
    int result = pthread_mutex_trylock(mutex);
    give_back(mutex, result);
    return result != EBUSY;
}

/* ---- crashes -----------------------------------------------------------------------------------
 */

static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGTRAP};

/* A handler is given nothing. */
static struct {
    _Atomic uint32_t *noted;
    void (*crashed)(void *context);
    void *context;
    pid_t process;
    struct sigaction before[SIGNALS];
} crashes;

/* What was there before does the rest when the instruction comes again, or the signal: a
 * sanitizer's report, or the end. */
static void on_crash(int number)
{
    if (apart_is() && getpid() == crashes.process) { /* it has not the descriptor to tell it by */
        syscall(SYS_tgkill, crashes.process, crashes.process, number); /* the main thread has */
        for (;;)
            pause();
    }
    if (getpid() == crashes.process) { /* not a child that was forked from it */
        *crashes.noted = (uint32_t)number;
        crashes.crashed(crashes.context);
    }
    sigaction(number, &crashes.before[number], NULL);
    raise(number);
}

void life_note_crashes(struct life *life, unsigned generation, void (*crashed)(void *context),
                       void *context)
{
    crashes.noted = &life->crash[generation % LIFE_GENERATIONS];
    crashes.crashed = crashed;
    crashes.context = context;
    crashes.process = getpid();
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | SA_NODEFER};
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        sigaction(deadly[i], &action, &crashes.before[deadly[i]]);
}

int life_crash(const struct life *life, unsigned generation)
{
    uint32_t number = life->crash[generation % LIFE_GENERATIONS];
    return number < SIGNALS ? (int)number : 0;
}

const char *life_end_name(enum life_end end)
{
    switch (end) {
    case LIFE_RUNS:
        return "none";
    case LIFE_KILLED:
        return "killed";
    case LIFE_CRASHED:
        return "crashed";
    case LIFE_FAILED:
        return "failed";
    case LIFE_UPGRADED:
        return "upgraded";
    }
    return "unknown";
}
