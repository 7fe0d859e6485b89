/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/control.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/kernel/inode_table.h"

#define MOST_WAITING 64u
/* Running stores end when the reads that they wait for are answered. */
#define STORES_TIMEOUT_MS 10000u
#define WHOLE_MOUNT UINT32_MAX

struct job {
    unsigned command;
    uint32_t component; /* or WHOLE_MOUNT */
};

struct control {
    struct filesystem *filesystem;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Protected by mutex: */
    struct job waiting[MOST_WAITING]; /* a ring: ticket t is in [(t - 1) % MOST_WAITING] */
    uint64_t last_ticket, served;
    bool running, stopping, ending;
};

/* ---- the thread --------------------------------------------------------------------------------
 */

static void evict_view(struct filesystem *filesystem, uint32_t view)
{
    char path[512];
    unshard_field(path, sizeof path, unshard_view_path(filesystem->checkpoint, view));
    if (unshard_engine_view_evict(filesystem->engine, view, STORES_TIMEOUT_MS))
        log_line(LOG_WARNING, "control", "event=evict-incomplete view=\"%s\"", path);
    uint64_t nodeid = inode_table_view_nodeid(filesystem->inodes, view);
    if (!nodeid)
        return;
    int result = fuse_lowlevel_notify_inval_inode(filesystem->session, nodeid, 0, 0);
    if (result && result != -ENOENT) /* ENOENT: the kernel has nothing of it */
        log_line(LOG_WARNING, "control", "event=evict-failed view=\"%s\" errno=%d", path, -result);
}

static bool is_stopping(struct control *control)
{
    pthread_mutex_lock(&control->mutex);
    bool stopping = control->stopping;
    pthread_mutex_unlock(&control->mutex);
    return stopping;
}

static void serve(struct control *control, const struct job *job)
{
    struct filesystem *filesystem = control->filesystem;
    const struct unshard_checkpoint *checkpoint = filesystem->checkpoint;
    bool evict = job->command == CONTROL_EVICT;
    char name[512];
    unshard_field(
        name, sizeof name,
        job->component == WHOLE_MOUNT ? "*" : unshard_component(checkpoint, job->component).name);
    log_line(LOG_NOTICE, "control", "event=%s component=\"%s\"", evict ? "evict" : "warm", name);
    uint32_t count = unshard_view_count(checkpoint);
    for (uint32_t view = 0; view < count && !is_stopping(control); view++) {
        int32_t component = unshard_view_component(checkpoint, view);
        if (job->component != WHOLE_MOUNT && component != (int32_t)job->component)
            continue;
        if (evict)
            evict_view(filesystem, view);
        else
            unshard_engine_view_warm(filesystem->engine, view);
    }
}

static void *run(void *argument)
{
    struct control *control = argument;
    pthread_mutex_lock(&control->mutex);
    while (!control->ending) {
        if (control->stopping || control->served == control->last_ticket) {
            pthread_cond_wait(&control->changed, &control->mutex);
            continue;
        }
        struct job job = control->waiting[control->served % MOST_WAITING];
        control->running = true;
        pthread_mutex_unlock(&control->mutex);
        serve(control, &job);
        pthread_mutex_lock(&control->mutex);
        control->running = false;
        control->served++;
        pthread_cond_broadcast(&control->changed);
    }
    pthread_mutex_unlock(&control->mutex);
    return NULL;
}

/* ---- its callers -------------------------------------------------------------------------------
 */

static int find_component(const struct unshard_checkpoint *checkpoint, const char *name,
                          uint32_t *out)
{
    *out = WHOLE_MOUNT;
    if (!*name)
        return 0;
    for (uint32_t i = 0; i < unshard_component_count(checkpoint); i++) {
        struct unshard_component component = unshard_component(checkpoint, i);
        const char *path = component.view_path;
        if (strcmp(component.name, name) != 0 && (!path || strcmp(path, name) != 0))
            continue;
        *out = i;
        return 0;
    }
    return -ENOENT;
}

static int add_job(struct control *control, struct job job, uint64_t *ticket)
{
    int result = 0;
    pthread_mutex_lock(&control->mutex);
    if (control->stopping) {
        result = -ESHUTDOWN;
    } else if (control->last_ticket - control->served >= MOST_WAITING) {
        result = -EAGAIN;
    } else {
        control->waiting[control->last_ticket % MOST_WAITING] = job;
        *ticket = ++control->last_ticket;
        pthread_cond_broadcast(&control->changed);
    }
    pthread_mutex_unlock(&control->mutex);
    return result;
}

int control_request(struct filesystem *filesystem, unsigned command,
                    struct control_message *message)
{
    struct control *control = filesystem->control;
    if (command == CONTROL_SERVED) {
        pthread_mutex_lock(&control->mutex);
        message->ticket = control->served;
        pthread_mutex_unlock(&control->mutex);
        return 0;
    }
    if (command != CONTROL_EVICT && command != CONTROL_WARM)
        return -ENOTTY;
    struct job job = {.command = command};
    message->component[sizeof message->component - 1] = '\0';
    int result = find_component(filesystem->checkpoint, message->component, &job.component);
    return result ? result : add_job(control, job, &message->ticket);
}

static void release(struct control *control)
{
    pthread_cond_destroy(&control->changed);
    pthread_mutex_destroy(&control->mutex);
    free(control);
}

int control_start(struct filesystem *filesystem)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return -ENOMEM;
    control->filesystem = filesystem;
    pthread_mutex_init(&control->mutex, NULL);
    monotonic_condition_init(&control->changed);
    int result = pthread_create(&control->thread, NULL, run, control);
    if (result) {
        release(control);
        return -result;
    }
    filesystem->control = control;
    return 0;
}

int control_quiesce(struct control *control, unsigned timeout_ms)
{
    if (!control)
        return 0;
    struct timespec until = monotonic_deadline(timeout_ms);
    int result = 0;
    pthread_mutex_lock(&control->mutex);
    control->stopping = true;
    while (control->running && result == 0)
        result = pthread_cond_timedwait(&control->changed, &control->mutex, &until);
    result = control->running ? -ETIMEDOUT : 0;
    pthread_mutex_unlock(&control->mutex);
    return result;
}

void control_free(struct control *control)
{
    if (!control)
        return;
    pthread_mutex_lock(&control->mutex);
    control->stopping = control->ending = true;
    pthread_cond_broadcast(&control->changed);
    pthread_mutex_unlock(&control->mutex);
    pthread_join(control->thread, NULL);
    release(control);
}
