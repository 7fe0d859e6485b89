/* SPDX-License-Identifier: MIT */
#include "base/workers.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define TICK_NS 200000000

struct crew {
    void (*work)(void *context);
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    unsigned running; /* under the lock */
};

static void *worker_main(void *argument)
{
    struct crew *crew = argument;
    crew->work(crew->context);
    pthread_mutex_lock(&crew->lock);
    crew->running--;
    pthread_cond_signal(&crew->ended);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void wait_for_all(struct crew *crew, void (*tick)(void *context))
{
    pthread_mutex_lock(&crew->lock);
    while (crew->running > 0) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_cond_timedwait(&crew->ended, &crew->lock, &until) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&crew->lock);
        tick(crew->context);
        pthread_mutex_lock(&crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
}

static void init_sync(struct crew *crew)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->ended, &attributes);
    pthread_condattr_destroy(&attributes);
}

int workers_run(unsigned count, void (*work)(void *context), void (*tick)(void *context),
                void *context)
{
    struct crew crew = {.work = work, .context = context};
    pthread_t threads[WORKERS_MAX];
    unsigned started = 0;
    int failure = 0;
    init_sync(&crew);
    count = count < WORKERS_MAX ? count : WORKERS_MAX;
    while (started < count && failure == 0) {
        pthread_mutex_lock(&crew.lock);
        crew.running++;
        pthread_mutex_unlock(&crew.lock);
        failure = pthread_create(&threads[started], NULL, worker_main, &crew);
        started += failure == 0;
    }
    if (failure != 0) {
        pthread_mutex_lock(&crew.lock);
        crew.running--;
        pthread_mutex_unlock(&crew.lock);
    }
    wait_for_all(&crew, tick);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    tick(context);
    pthread_cond_destroy(&crew.ended);
    pthread_mutex_destroy(&crew.lock);
    return started == 0 && count > 0 ? -failure : 0;
}
