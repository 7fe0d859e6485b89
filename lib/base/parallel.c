/* SPDX-License-Identifier: MIT */
#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#define MOST_THREADS 64U

struct queue {
    void (*task)(void *context, uint32_t number);
    void *context;
    uint32_t count;
    atomic_uint next;
};

static void *work(void *argument)
{
    struct queue *queue = argument;
    uint32_t number;
    while ((number = atomic_fetch_add(&queue->next, 1)) < queue->count)
        queue->task(queue->context, number);
    return NULL;
}

void parallel_run(uint32_t count, unsigned threads, void (*task)(void *context, uint32_t number),
                  void *context)
{
    struct queue queue = {.task = task, .context = context, .count = count};
    pthread_t started[MOST_THREADS];
    unsigned running = 0;
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    while (running + 1 < threads && running + 1 < count &&
           pthread_create(&started[running], NULL, work, &queue) == 0)
        running++;
    work(&queue);
    for (unsigned i = 0; i < running; i++)
        pthread_join(started[i], NULL);
}
