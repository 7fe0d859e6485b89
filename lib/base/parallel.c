/* SPDX-License-Identifier: MIT
 *
 * Whether tasks compute or wait is not known before: it is looked at after a moment, and as long as
 * the processors are not busy with them there are more threads. */
#include "base/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MOST_THREADS 128U
#define FIRST_LEAST 2U
#define FIRST_MOST 16U
/* Of all that run at the same time; but each has its first ones. */
#define MOST_IN_ALL 512U
/* More threads each time that tasks are found to wait. */
#define GROWTH 8U
#define MOMENT_NS 1000000
/* Descriptors of a task, and what else is open. */
#define DESCRIPTORS_EACH 4U
#define OTHER_DESCRIPTORS 24U

static atomic_uint in_all;

struct crew {
    void (*task)(void *context, uint32_t number);
    void *context;
    uint32_t count;
    atomic_uint next;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    pthread_t threads[MOST_THREADS];
    unsigned started, running; /* the latter under the lock */
    unsigned most, most_in_all, processors;
};

static void *work(void *argument)
{
    struct crew *crew = argument;
    uint32_t number;
    while ((number = atomic_fetch_add(&crew->next, 1)) < crew->count)
        crew->task(crew->context, number);
    pthread_mutex_lock(&crew->lock);
    crew->running--;
    pthread_cond_signal(&crew->ended);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Of those that all crews have; the first ones are not asked. */
static bool take_thread(const struct crew *crew)
{
    if (atomic_fetch_add(&in_all, 1) < crew->most_in_all || crew->started < FIRST_LEAST)
        return true;
    atomic_fetch_sub(&in_all, 1);
    return false;
}

/* False: no more can be had. */
static bool start_threads(struct crew *crew, unsigned wanted)
{
    if (wanted > crew->most)
        wanted = crew->most;
    while (crew->started < wanted && atomic_load(&crew->next) < crew->count) {
        if (!take_thread(crew))
            return true; /* perhaps later */
        pthread_mutex_lock(&crew->lock);
        crew->running++;
        pthread_mutex_unlock(&crew->lock);
        if (pthread_create(&crew->threads[crew->started], NULL, work, crew) != 0) {
            pthread_mutex_lock(&crew->lock);
            crew->running--;
            pthread_mutex_unlock(&crew->lock);
            atomic_fetch_sub(&in_all, 1);
            crew->most = crew->started;
            return false;
        }
        crew->started++;
    }
    return true;
}

/* Waits until all have ended, for a moment at most. */
static bool wait_a_moment(struct crew *crew)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += MOMENT_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&crew->lock);
    int result = 0;
    while (crew->running > 0 && result == 0)
        result = pthread_cond_timedwait(&crew->ended, &crew->lock, &until);
    bool ended = crew->running == 0;
    pthread_mutex_unlock(&crew->lock);
    return ended;
}

/* What has been done so far. */
struct progress {
    uint64_t time_ns, processor_ns;
    long waits;
    uint32_t begun;
};

static struct progress progress_of(struct crew *crew)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    return (struct progress){.time_ns = nanoseconds(CLOCK_MONOTONIC),
                             .processor_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID),
                             .waits = usage.ru_nvcsw,
                             .begun = atomic_load(&crew->next)};
}

/* The processors have time, and not only because others have them: no task has ended, or threads
 * have gone to sleep in every other one. One of these was ours. */
static bool tasks_wait(const struct crew *crew, const struct progress *was,
                       const struct progress *is)
{
    uint64_t time = (is->time_ns - was->time_ns) * crew->processors;
    uint32_t begun = is->begun - was->begun;
    bool busy = is->processor_ns - was->processor_ns > time * 3 / 4;
    return !busy && (begun == 0 || is->waits - was->waits > 1 + begun / 2);
}

/* More threads while the tasks wait. */
static void add_threads(struct crew *crew, struct progress was)
{
    while (crew->started < crew->most && atomic_load(&crew->next) < crew->count &&
           !wait_a_moment(crew)) {
        struct progress is = progress_of(crew);
        if (tasks_wait(crew, &was, &is))
            start_threads(crew, crew->started * GROWTH);
        was = is;
    }
}

/* For how many tasks there are descriptors. */
static unsigned descriptors_for(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur <= OTHER_DESCRIPTORS)
        return 1;
    rlim_t tasks = (limit.rlim_cur - OTHER_DESCRIPTORS) / DESCRIPTORS_EACH;
    return tasks < MOST_IN_ALL ? (unsigned)tasks : MOST_IN_ALL;
}

static void set_limits(struct crew *crew, uint32_t count)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    crew->processors = processors > 0 ? (unsigned)processors : 1;
    crew->most_in_all = descriptors_for();
    crew->most = count < MOST_THREADS ? count : MOST_THREADS;
    if (crew->most_in_all < crew->most)
        crew->most = crew->most_in_all;
}

static unsigned first_threads(const struct crew *crew)
{
    return crew->processors < FIRST_LEAST  ? FIRST_LEAST
           : crew->processors > FIRST_MOST ? FIRST_MOST
                                           : crew->processors;
}

static void init_sync(struct crew *crew)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void parallel_run(uint32_t count, void (*task)(void *context, uint32_t number), void *context)
{
    struct crew crew = {.task = task, .context = context, .count = count};
    set_limits(&crew, count);
    init_sync(&crew);
    struct progress start = progress_of(&crew);
    if (crew.most > 1 && start_threads(&crew, first_threads(&crew)))
        add_threads(&crew, start);
    if (crew.started == 0) {
        crew.running = 1;
        work(&crew);
    }
    for (unsigned i = 0; i < crew.started; i++)
        pthread_join(crew.threads[i], NULL);
    atomic_fetch_sub(&in_all, crew.started);
    pthread_cond_destroy(&crew.ended);
    pthread_mutex_destroy(&crew.lock);
}
