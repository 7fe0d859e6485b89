/* SPDX-License-Identifier: MIT */
#include "fs/mount/reporter.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/host/service_manager.h"
#include "fs/mount/mirror.h"

#define INTERVAL_MS 1000u
#define WRITE_MS 200
#define WRITER_END_MS 500
/* Reports between two lines for the service manager. */
#define NOTIFY_EVERY 5u
/* Texts in a row that the writer does not take before that is worth a line in the log. */
#define STUCK_AFTER 10u

enum { STATUS_FILE, METRICS_FILE };

struct reporter {
    const char *paths[MIRROR_FILES];
    struct mirror mirror;
    bool notify; /* there is a service manager */
    struct unshard_engine *engine;
    pthread_t thread;
    bool thread_runs;
    unsigned refused; /* texts in a row; of the thread */
    bool broken;      /* there is no writer any more; of the thread */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stopping; /* protected by mutex */
};

static void log_problems(struct reporter *reporter)
{
    struct mirror_problem problem;
    while (mirror_next_problem(&reporter->mirror, &problem)) {
        const char *path = reporter->paths[problem.file % MIRROR_FILES];
        if (problem.error)
            log_line(LOG_WARNING, "mirror", "event=write-failed path=\"%s\" reason=\"%s\"", path,
                     strerror(problem.error));
        else
            log_line(LOG_NOTICE, "mirror", "event=write-works path=\"%s\"", path);
    }
}

/* Whether the writer can be handed something; says so in the log when that changes. */
static bool writer_ready(struct reporter *reporter)
{
    if (reporter->mirror.process <= 0 || reporter->broken)
        return false;
    int result = mirror_ready(&reporter->mirror);
    if (result == 0 && reporter->refused >= STUCK_AFTER)
        log_line(LOG_NOTICE, "mirror", "event=write-resumed");
    reporter->refused = result == -EAGAIN ? reporter->refused + 1 : 0;
    if (reporter->refused == STUCK_AFTER)
        log_line(LOG_WARNING, "mirror", "event=write-stuck seconds=%u",
                 STUCK_AFTER * INTERVAL_MS / 1000);
    reporter->broken = result != 0 && result != -EAGAIN;
    if (reporter->broken)
        log_line(LOG_ERR, "mirror", "event=writer-gone reason=\"%s\"", strerror(-result));
    return result == 0;
}

static void write_file(struct reporter *reporter, uint32_t file, const char *text)
{
    if (reporter->paths[file] && text)
        mirror_write(&reporter->mirror, file, text, strlen(text), WRITE_MS);
}

static void write_files(struct reporter *reporter, const struct unshard_status *status)
{
    if (!writer_ready(reporter))
        return;
    char *json = reporter->paths[STATUS_FILE] ? unshard_status_json(status) : NULL;
    char *metrics = reporter->paths[METRICS_FILE] ? unshard_status_metrics(status) : NULL;
    write_file(reporter, STATUS_FILE, json);
    write_file(reporter, METRICS_FILE, metrics);
    free(json);
    free(metrics);
}

static void notify_status(const struct unshard_status *status)
{
    char state[512];
    char *line = unshard_status_summary(status);
    if (line) {
        snprintf(state, sizeof state, "STATUS=%s", line);
        service_manager_tell(state);
    }
    free(line);
}

static void report(struct reporter *reporter, bool notify)
{
    struct unshard_status *status = unshard_status_take(reporter->engine, UNSHARD_NO_VIEW);
    if (!status)
        return;
    write_files(reporter, status);
    if (notify)
        notify_status(status);
    unshard_status_free(status);
    if (reporter->mirror.process > 0)
        log_problems(reporter);
}

static void *run(void *argument)
{
    struct reporter *reporter = argument;
    pthread_mutex_lock(&reporter->mutex);
    for (unsigned round = 0; !reporter->stopping; round++) {
        struct timespec next = monotonic_deadline(INTERVAL_MS);
        pthread_mutex_unlock(&reporter->mutex);
        report(reporter, reporter->notify && round % NOTIFY_EVERY == 1);
        pthread_mutex_lock(&reporter->mutex);
        int result = 0;
        while (!reporter->stopping && result != ETIMEDOUT)
            result = pthread_cond_timedwait(&reporter->changed, &reporter->mutex, &next);
    }
    pthread_mutex_unlock(&reporter->mutex);
    return NULL;
}

int reporter_prepare(const char *status_path, const char *metrics_path, struct reporter **out)
{
    bool notify = getenv("NOTIFY_SOCKET") != NULL;
    *out = NULL;
    if (!status_path && !metrics_path && !notify)
        return 0;
    struct reporter *reporter = calloc(1, sizeof *reporter);
    if (!reporter)
        return -ENOMEM;
    reporter->notify = notify;
    reporter->paths[STATUS_FILE] = status_path;
    reporter->paths[METRICS_FILE] = metrics_path;
    int result = 0;
    if (status_path || metrics_path)
        result = mirror_start(&reporter->mirror, reporter->paths);
    if (result) {
        free(reporter);
        return result;
    }
    pthread_mutex_init(&reporter->mutex, NULL);
    monotonic_condition_init(&reporter->changed);
    *out = reporter;
    return 0;
}

int reporter_start(struct reporter *reporter, struct unshard_engine *engine)
{
    if (!reporter)
        return 0;
    reporter->engine = engine;
    int result = pthread_create(&reporter->thread, NULL, run, reporter);
    reporter->thread_runs = result == 0;
    return -result;
}

void reporter_stop(struct reporter *reporter)
{
    if (!reporter)
        return;
    if (reporter->thread_runs) {
        pthread_mutex_lock(&reporter->mutex);
        reporter->stopping = true;
        pthread_cond_signal(&reporter->changed);
        pthread_mutex_unlock(&reporter->mutex);
        pthread_join(reporter->thread, NULL);
    }
    mirror_stop(&reporter->mirror, WRITER_END_MS);
    pthread_cond_destroy(&reporter->changed);
    pthread_mutex_destroy(&reporter->mutex);
    free(reporter);
}
