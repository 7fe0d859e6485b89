/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/waiting.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>

#include "fs/host/monotonic.h"

#define IDLE_MS 5000u

/* Jobs in the order in which they came. */
struct line {
    struct waiting_job *first, **end;
};

enum seat { SEAT_FREE, SEAT_TAKEN, SEAT_LEFT };

struct thread {
    struct waiting_room *room;
    pthread_t thread;
    enum seat seat; /* LEFT: it has ended, or is about to, and is to be joined */
};

struct waiting_room {
    pthread_mutex_t mutex;
    pthread_cond_t work;    /* for the threads: there may be a job to begin */
    pthread_cond_t door;    /* for the door: somebody was interrupted */
    pthread_cond_t changed; /* for waiting_close: a thread has ended */
    pthread_t door_thread;
    /* Of mutex: */
    struct line waiting, running;
    unsigned waiting_count, thread_count, idle_count;
    bool closed;
    struct thread threads[WAITING_THREADS];
};

static void line_add(struct line *line, struct waiting_job *job)
{
    job->next = NULL;
    *line->end = job;
    line->end = &job->next;
}

static void line_remove(struct line *line, struct waiting_job *job)
{
    struct waiting_job **link = &line->first;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    if (line->end == &job->next)
        line->end = link;
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static bool key_runs(const struct waiting_room *room, uint64_t key)
{
    for (const struct waiting_job *job = room->running.first; job; job = job->next)
        if (job->key == key)
            return true;
    return false;
}

/* The first that can be begun. Caller holds the mutex. */
static struct waiting_job *next_job(const struct waiting_room *room)
{
    for (struct waiting_job *job = room->waiting.first; job; job = job->next)
        if (!job->entering && !key_runs(room, job->key))
            return job;
    return NULL;
}

/* Caller holds the mutex, which is let go of meanwhile. */
static void carry_out(struct waiting_room *room, struct waiting_job *job)
{
    line_remove(&room->waiting, job);
    room->waiting_count--;
    line_add(&room->running, job);
    pthread_mutex_unlock(&room->mutex);
    job->work(job);
    pthread_mutex_lock(&room->mutex);
    line_remove(&room->running, job);
    pthread_mutex_unlock(&room->mutex);
    job->release(job);
    pthread_mutex_lock(&room->mutex);
}

static void *work(void *argument)
{
    struct thread *self = argument;
    struct waiting_room *room = self->room;
    struct timespec until = monotonic_deadline(IDLE_MS);
    int result = 0;
    pthread_mutex_lock(&room->mutex);
    for (;;) {
        struct waiting_job *job = next_job(room);
        if (job) {
            carry_out(room, job);
            until = monotonic_deadline(IDLE_MS);
            result = 0;
            continue;
        }
        if (room->closed || result == ETIMEDOUT)
            break;
        room->idle_count++;
        result = pthread_cond_timedwait(&room->work, &room->mutex, &until);
        room->idle_count--;
    }
    self->seat = SEAT_LEFT;
    room->thread_count--;
    pthread_cond_broadcast(&room->changed);
    pthread_mutex_unlock(&room->mutex);
    return NULL;
}

/* Somebody who will begin what waits, if there can be. Caller holds the mutex. */
static void call_thread(struct waiting_room *room)
{
    pthread_cond_signal(&room->work);
    if (room->idle_count > 0 || room->thread_count == WAITING_THREADS)
        return;
    struct thread *seat = room->threads;
    while (seat->seat == SEAT_TAKEN)
        seat++;
    if (seat->seat == SEAT_LEFT)
        pthread_join(seat->thread, NULL); /* it has let go of the mutex, or does it next */
    seat->seat = SEAT_FREE;
    seat->room = room;
    if (pthread_create(&seat->thread, NULL, work, seat))
        return; /* those that are there come to it */
    seat->seat = SEAT_TAKEN;
    room->thread_count++;
}

/* ---- who answers -------------------------------------------------------------------------------
 */

/* Nobody else answers it any more, and an interrupt says nothing. Without the mutex: one that comes
 * just now holds the request's own lock and wants the mutex. */
static struct fuse_req *make_ours(struct fuse_req *request)
{
    if (request)
        fuse_req_interrupt_func(request, NULL, NULL);
    return request;
}

struct fuse_req *waiting_take(struct waiting_room *room, struct waiting_job *job)
{
    pthread_mutex_lock(&room->mutex);
    struct fuse_req *request = job->request;
    job->request = NULL;
    pthread_mutex_unlock(&room->mutex);
    return make_ours(request);
}

static struct waiting_job *find(const struct waiting_room *room, const struct fuse_req *request)
{
    const struct line *lines[] = {&room->waiting, &room->running};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        for (struct waiting_job *job = lines[i]->first; job; job = job->next)
            if (job->request == request)
                return job;
    return NULL;
}

/* Called by libfuse with the request's lock. Goes by the request: the job may have ended. */
static void on_interrupt(struct fuse_req *request, void *context)
{
    struct waiting_room *room = context;
    pthread_mutex_lock(&room->mutex);
    struct waiting_job *job = find(room, request);
    if (job && job->interrupted_ms == 0) {
        job->interrupted_ms = monotonic_ms();
        pthread_cond_signal(&room->door);
    }
    pthread_mutex_unlock(&room->mutex);
}

/* The one that was interrupted first of those that are not answered. Caller holds the mutex. */
static struct waiting_job *first_interrupted(const struct line *line, struct waiting_job *first)
{
    for (struct waiting_job *job = line->first; job; job = job->next)
        if (job->request && !job->entering && job->interrupted_ms != 0 &&
            (!first || job->interrupted_ms < first->interrupted_ms))
            first = job;
    return first;
}

/* Answers a job for good. One that nobody has begun goes, too. Caller holds the mutex, which is let
 * go of meanwhile: the job may be gone then. */
static void turn_away(struct waiting_room *room, struct waiting_job *job, bool begun, int error)
{
    struct fuse_req *request = job->request;
    job->request = NULL;
    if (!begun) {
        line_remove(&room->waiting, job);
        room->waiting_count--;
    }
    pthread_mutex_unlock(&room->mutex);
    if (make_ours(request))
        fuse_reply_err(request, error);
    if (!begun)
        job->release(job);
    pthread_mutex_lock(&room->mutex);
}

static void *keep_door(void *argument)
{
    struct waiting_room *room = argument;
    pthread_mutex_lock(&room->mutex);
    while (!room->closed) {
        struct waiting_job *waits = first_interrupted(&room->waiting, NULL);
        struct waiting_job *job = first_interrupted(&room->running, waits);
        int64_t left = job ? job->interrupted_ms + WAITING_GRACE_MS - monotonic_ms() : 0;
        if (!job) {
            pthread_cond_wait(&room->door, &room->mutex);
        } else if (left > 0) {
            struct timespec until = monotonic_deadline((unsigned)left);
            pthread_cond_timedwait(&room->door, &room->mutex, &until);
        } else {
            turn_away(room, job, job != waits, EINTR);
        }
    }
    pthread_mutex_unlock(&room->mutex);
    return NULL;
}

/* ---- its callers -------------------------------------------------------------------------------
 */

struct waiting_room *waiting_room_new(void)
{
    struct waiting_room *room = calloc(1, sizeof *room);
    if (!room)
        return NULL;
    pthread_mutex_init(&room->mutex, NULL);
    monotonic_condition_init(&room->work);
    monotonic_condition_init(&room->door);
    monotonic_condition_init(&room->changed);
    room->waiting.end = &room->waiting.first;
    room->running.end = &room->running.first;
    if (pthread_create(&room->door_thread, NULL, keep_door, room) == 0)
        return room;
    free(room);
    return NULL;
}

static int add(struct waiting_room *room, struct waiting_job *job)
{
    int result = 0;
    pthread_mutex_lock(&room->mutex);
    if (room->closed)
        result = -ESHUTDOWN;
    else if (room->waiting_count >= WAITING_JOBS)
        result = -EAGAIN;
    if (result == 0) {
        line_add(&room->waiting, job);
        room->waiting_count++;
    }
    pthread_mutex_unlock(&room->mutex);
    return result;
}

int waiting_enter(struct waiting_room *room, struct waiting_job *job, struct fuse_req *request)
{
    job->request = request;
    job->interrupted_ms = 0;
    job->entering = true;
    int result = add(room, job);
    if (result)
        return result;
    /* It may have been interrupted already: then that is told at once. Nobody begins or answers it
     * before we are done with it. */
    if (request)
        fuse_req_interrupt_func(request, on_interrupt, room);
    pthread_mutex_lock(&room->mutex);
    job->entering = false;
    if (job->interrupted_ms != 0)
        pthread_cond_signal(&room->door);
    if (!room->closed)
        call_thread(room);
    if (room->closed || room->thread_count == 0) /* nobody comes to it */
        turn_away(room, job, false, room->closed ? ESHUTDOWN : EAGAIN);
    pthread_mutex_unlock(&room->mutex);
    return 0;
}

bool waiting_closed(struct waiting_room *room)
{
    pthread_mutex_lock(&room->mutex);
    bool closed = room->closed;
    pthread_mutex_unlock(&room->mutex);
    return closed;
}

/* One that nobody has begun; who is only entering sees by himself that it is too late. */
static struct waiting_job *first_idle(const struct waiting_room *room)
{
    struct waiting_job *job = room->waiting.first;
    while (job && job->entering)
        job = job->next;
    return job;
}

static struct waiting_job *first_unanswered(const struct waiting_room *room)
{
    struct waiting_job *job = room->running.first;
    while (job && !job->request)
        job = job->next;
    return job;
}

int waiting_close(struct waiting_room *room, unsigned timeout_ms)
{
    if (!room)
        return 0;
    struct timespec until = monotonic_deadline(timeout_ms);
    int result = 0;
    pthread_mutex_lock(&room->mutex);
    room->closed = true;
    pthread_cond_broadcast(&room->work);
    pthread_cond_broadcast(&room->door);
    for (struct waiting_job *job; (job = first_idle(room)) != NULL;)
        turn_away(room, job, false, ESHUTDOWN);
    for (struct waiting_job *job; (job = first_unanswered(room)) != NULL;)
        turn_away(room, job, true, ESHUTDOWN);
    while (room->thread_count > 0 && result == 0)
        result = pthread_cond_timedwait(&room->changed, &room->mutex, &until);
    result = room->thread_count > 0 ? -ETIMEDOUT : 0;
    pthread_mutex_unlock(&room->mutex);
    return result;
}

void waiting_room_free(struct waiting_room *room)
{
    if (!room)
        return;
    pthread_join(room->door_thread, NULL);
    for (unsigned i = 0; i < WAITING_THREADS; i++)
        if (room->threads[i].seat == SEAT_LEFT)
            pthread_join(room->threads[i].thread, NULL);
    pthread_cond_destroy(&room->work);
    pthread_cond_destroy(&room->door);
    pthread_cond_destroy(&room->changed);
    pthread_mutex_destroy(&room->mutex);
    free(room);
}
