/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/control.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "fs/host/contained.h"
#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/kernel/companions.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/waiting.h"

#define MOST_WAITING 64u
/* Running stores end when the reads that they wait for are answered. */
#define STORES_TIMEOUT_MS 10000u
struct job {
    unsigned command;
    char *target; /* on the heap */
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
    struct job serving; /* of the thread */
};

/* ---- the thread --------------------------------------------------------------------------------
 */

static void evict_view(struct filesystem *filesystem, const struct inode *inode, uint32_t view,
                       const char *view_path)
{
    char path[512];
    unshard_field(path, sizeof path, view_path);
    if (unshard_engine_view_evict(filesystem->engine, view, STORES_TIMEOUT_MS))
        log_line(LOG_WARNING, "control", "event=evict-incomplete view=\"%s\"", path);
    int result = fuse_lowlevel_notify_inval_inode(filesystem->session, inode->id, 0, 0);
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

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* Whether a file is meant by what a command names: a component, the path of a file, or a directory
 * that it is in, in whatever depth. */
static bool is_meant(const struct inode_sight *sight, const char *target)
{
    const struct unshard_checkpoint *layout = sight->place.layout;
    if (!*target || strcmp(sight->path, target) == 0 || is_below(sight->path, target))
        return true;
    if (!layout) /* it is not attached */
        return false;
    int32_t number = unshard_view_component(layout, unshard_node(layout, sight->place.node)->view);
    return number >= 0 && strcmp(unshard_component(layout, (uint32_t)number).name, target) == 0;
}

/* What is not the engine's yet has no pages to evict, and becomes the engine's when it is named. */
static int serve_file(void *context, struct inode *inode)
{
    struct control *control = context;
    struct filesystem *filesystem = control->filesystem;
    const struct job *job = &control->serving;
    struct inode_sight sight;
    if (is_stopping(control))
        return -ESHUTDOWN;
    if (inode_table_sight(filesystem->inodes, inode, &sight))
        return -ENOMEM;
    bool meant = is_meant(&sight, job->target), warm = job->command == CONTROL_WARM;
    if (meant && warm && *job->target)
        inode_table_attach(filesystem->inodes, inode, NULL);
    uint32_t view = inode_table_view(filesystem->inodes, inode);
    if (meant && view != UNSHARD_NO_VIEW && warm) {
        unshard_engine_prefetch(filesystem->engine, view, companions_model(filesystem, inode));
        unshard_engine_view_warm(filesystem->engine, view);
    } else if (meant && view != UNSHARD_NO_VIEW) {
        evict_view(filesystem, inode, view, sight.path);
    }
    inode_sight_release(&sight);
    return 0;
}

static void serve(struct control *control)
{
    const struct job *job = &control->serving;
    char name[512];
    unshard_field(name, sizeof name, *job->target ? job->target : "*");
    log_line(LOG_NOTICE, "control", "event=%s component=\"%s\"",
             job->command == CONTROL_EVICT ? "evict" : "warm", name);
    inode_table_each_file(control->filesystem->inodes, serve_file, control);
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
        control->serving = control->waiting[control->served % MOST_WAITING];
        control->running = true;
        pthread_mutex_unlock(&control->mutex);
        serve(control);
        free(control->serving.target);
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

/* A request that is looked into. */
struct inquiry {
    struct waiting_job job;
    struct filesystem *filesystem;
    unsigned command;
    pid_t caller; /* as the mount sees it; 0: it does not */
    struct control_message message;
};

static int stop_at_meant(void *context, struct inode *inode)
{
    const struct inquiry *inquiry = context;
    struct inode_sight sight;
    if (inode_table_sight(inquiry->filesystem->inodes, inode, &sight))
        return -ENOMEM;
    bool meant = is_meant(&sight, inquiry->message.component);
    inode_sight_release(&sight);
    return meant;
}

/* Whether there is what a command names. */
static int check_target(struct inquiry *inquiry)
{
    struct unshard_place place;
    struct filesystem *filesystem = inquiry->filesystem;
    if (!*inquiry->message.component)
        return 0;
    int result = inode_table_each_file(filesystem->inodes, stop_at_meant, inquiry);
    if (result != 0)
        return result > 0 ? 0 : result;
    result = unshard_tree_look(filesystem->tree, inquiry->message.component, &place, NULL);
    if (result == 0)
        unshard_layout_release(place.layout);
    return result == -ENOTDIR ? -ENOENT : result;
}

/* root in a container has this user's number, and is to run nothing outside of it. */
static int try_program(const struct inquiry *inquiry, char *reason, size_t capacity)
{
    const struct filesystem *filesystem = inquiry->filesystem;
    if (!process_is_contained(inquiry->caller))
        return filesystem->upgrade_try(filesystem->upgrade_context, inquiry->message.component,
                                       reason, capacity);
    snprintf(reason, capacity,
             "only a process beside the daemon may ask for that, none of a container");
    return -EPERM;
}

static void upgrade(struct inquiry *inquiry)
{
    struct filesystem *filesystem = inquiry->filesystem;
    struct control_message *message = &inquiry->message;
    char reason[CONTROL_COMPONENT_CAPACITY] = "";
    int result = try_program(inquiry, reason, sizeof reason);
    memcpy(message->component, reason, sizeof reason);
    message->ticket = (uint64_t)-result;
    struct fuse_req *request = waiting_take(filesystem->waiting, &inquiry->job);
    if (request)
        fuse_reply_ioctl(request, 0, message, sizeof *message);
    if (result == 0)
        filesystem->upgrade_decide(filesystem->upgrade_context, request != NULL);
}

static void work(struct waiting_job *job)
{
    struct inquiry *inquiry = (struct inquiry *)job;
    struct filesystem *filesystem = inquiry->filesystem;
    if (inquiry->command == CONTROL_UPGRADE) {
        upgrade(inquiry);
        return;
    }
    struct job order = {.command = inquiry->command};
    int result = check_target(inquiry);
    struct fuse_req *request = waiting_take(filesystem->waiting, job);
    if (!request)
        return; /* nobody wants it any more */
    if (result == 0)
        result = (order.target = strdup(inquiry->message.component)) ? 0 : -ENOMEM;
    if (result == 0)
        result = add_job(filesystem->control, order, &inquiry->message.ticket);
    if (result) {
        free(order.target);
        fuse_reply_err(request, -result);
    } else {
        fuse_reply_ioctl(request, 0, &inquiry->message, sizeof inquiry->message);
    }
}

static void release_inquiry(struct waiting_job *job)
{
    free(job);
}

/* A directory is named by its path, however that is written. */
static void trim(char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    if (path[0] == '.' && path[1] == '/')
        memmove(path, path + 2, length - 1);
}

static int inquire(struct filesystem *filesystem, struct fuse_req *request, unsigned command,
                   const struct control_message *message)
{
    struct inquiry *inquiry = calloc(1, sizeof *inquiry);
    if (!inquiry)
        return -ENOMEM;
    inquiry->job =
        (struct waiting_job){.work = work, .release = release_inquiry, .key = WAITING_KEY_CONTROL};
    inquiry->filesystem = filesystem;
    inquiry->command = command;
    inquiry->caller = fuse_req_ctx(request)->pid;
    inquiry->message = *message;
    inquiry->message.component[sizeof message->component - 1] = '\0';
    if (command != CONTROL_UPGRADE)
        trim(inquiry->message.component);
    int result = waiting_enter(filesystem->waiting, &inquiry->job, request);
    if (result)
        free(inquiry);
    return result;
}

void control_request(struct filesystem *filesystem, struct fuse_req *request, unsigned command,
                     struct control_message *message)
{
    struct control *control = filesystem->control;
    int result = -ENOTTY;
    if (command == CONTROL_EVICT || command == CONTROL_WARM ||
        (command == CONTROL_UPGRADE && filesystem->upgrade_try))
        result = inquire(filesystem, request, command, message);
    if (command == CONTROL_SERVED) {
        pthread_mutex_lock(&control->mutex);
        message->ticket = control->served;
        pthread_mutex_unlock(&control->mutex);
        fuse_reply_ioctl(request, 0, message, sizeof *message);
    } else if (result) {
        fuse_reply_err(request, -result);
    }
}

static void release(struct control *control)
{
    for (uint64_t ticket = control->served; ticket < control->last_ticket; ticket++)
        free(control->waiting[ticket % MOST_WAITING].target);
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
