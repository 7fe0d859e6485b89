/* SPDX-License-Identifier: MIT */
#include "fs/cli/run_report.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/cli/bounded_read.h"
#include "fs/cli/progress.h"
#include "fs/cli/terminal.h"
#include "fs/cli/warmth.h"
#include "fs/host/close_others.h"

#define POLL_MS 200

/* The caller frees it. NULL: the mount does not tell, with why in message. */
static struct unshard_status *read_status(const char *path, char *message, size_t capacity)
{
    int number;
    char *json = bounded_read_status(path, ANSWER_MS, message, capacity, &number);
    if (!json)
        return NULL;
    struct unshard_status *status = unshard_status_parse(json);
    free(json);
    if (!status)
        snprintf(message, capacity, "%s: the status could not be read", path);
    return status;
}

/* ---- beside the command ------------------------------------------------------------------------
 */

/* What all mounts together have loaded. */
struct loaded {
    uint64_t done, total;
    char unfinished[256];
    bool rising; /* there is more to come */
};

static struct loaded look(const struct run_report *report)
{
    struct loaded loaded = {0};
    for (unsigned i = 0; i < report->count; i++) {
        char message[1200];
        struct warmth warmth;
        struct unshard_status *status = read_status(report->paths[i], message, sizeof message);
        if (!status)
            continue;
        enum warmth_state state = warmth_of(status, false, &warmth);
        loaded.done += warmth.done;
        loaded.total += warmth.total;
        loaded.rising = loaded.rising || state == WARMTH_RISING || state == WARMTH_FAILING;
        if (!*loaded.unfinished && warmth.unfinished)
            snprintf(loaded.unfinished, sizeof loaded.unfinished, "%s", warmth.unfinished);
        unshard_status_free(status);
    }
    return loaded;
}

/* command: a pidfd. */
static void show(const struct run_report *report, int command)
{
    struct progress_line line;
    struct pollfd entry = {.fd = command, .events = POLLIN};
    struct loaded loaded;
    progress_begin(&line, stderr);
    do {
        loaded = look(report);
        if (loaded.rising)
            progress_show(&line, loaded.unfinished, loaded.done, loaded.total);
    } while (loaded.rising && poll(&entry, 1, POLL_MS) == 0);
    progress_end(&line);
}

static void become_watcher(const struct run_report *report, int command)
{
    /* What a terminal sends is for the command; with its end this one's work is done. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    prctl(PR_SET_NAME, "unshard-watcher");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd);
    close_others(STDERR_FILENO + 1, command, -1);
    show(report, command);
}

void run_report_start_progress(const struct run_report *report)
{
    int command = pidfd_open(getpid(), 0);
    if (command < 0)
        return;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0)
            become_watcher(report, command);
        _exit(0);
    }
    close(command);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* ---- after it ----------------------------------------------------------------------------------
 */

/* What is told of one mount. */
struct summary {
    unsigned shards, states[UNSHARD_STATE_FAILED + 1];
    const struct unshard_file_status *slowest; /* by what a read of it brought; NULL: none */
    double slowest_rate;                       /* bytes per second of one read */
    char digests[96];                          /* names of what they are checked by */
};

static void add_digest(struct summary *summary, const char *algorithm)
{
    size_t used = strlen(summary->digests);
    if (algorithm && !strstr(summary->digests, algorithm))
        snprintf(summary->digests + used, sizeof summary->digests - used, "%s%s",
                 used > 0 ? "," : "", algorithm);
}

static void add_shard(struct summary *summary, const struct unshard_file_status *shard)
{
    summary->shards++;
    add_digest(summary, shard->algorithm);
    if ((size_t)shard->state < sizeof summary->states / sizeof *summary->states)
        summary->states[shard->state]++;
    if (shard->reading_seconds <= 0 || shard->bytes_read == 0)
        return;
    double rate = (double)shard->bytes_read / shard->reading_seconds;
    if (summary->slowest && rate >= summary->slowest_rate)
        return;
    summary->slowest = shard;
    summary->slowest_rate = rate;
}

static struct summary summarise(const struct unshard_status *status)
{
    struct summary summary = {0};
    for (uint32_t i = 0; i < status->component_count; i++) {
        const struct unshard_component_status *component = &status->components[i];
        /* One of several in its files shows the same shards as the one that has all of them. */
        for (uint32_t j = 0; !component->prefix && j < component->shard_count; j++)
            add_shard(&summary, component->shards[j]);
    }
    return summary;
}

static double rate_of(const struct unshard_status *status)
{
    return status->reading_seconds > 0 ? (double)status->bytes_read / status->reading_seconds : 0;
}

static void print_error(const struct unshard_error *error)
{
    char message[1100], code[128];
    fprintf(stderr, "  %s (%s)\n",
            unshard_printable(message, sizeof message, error->message, strlen(error->message)),
            unshard_printable(code, sizeof code, error->code, strlen(error->code)));
}

static void print_errors(const struct unshard_status *status)
{
    for (uint32_t i = 0; i < status->problem_count; i++)
        print_error(&status->problems[i]);
    for (uint32_t i = 0; i < status->component_count; i++) {
        const struct unshard_component_status *component = &status->components[i];
        bool told = false; /* a component's error repeats that of its shard */
        for (uint32_t j = 0; j < component->shard_count; j++) {
            const struct unshard_error *error = component->shards[j]->error;
            if (error && !component->prefix)
                print_error(error);
            told = told || error;
        }
        if (component->error && !told)
            print_error(component->error);
    }
}

static void print_text(const char *path, const struct unshard_status *status)
{
    char quoted[1100], file[1100], bytes[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY];
    char duration[UNSHARD_HUMAN_CAPACITY], rate[UNSHARD_HUMAN_CAPACITY];
    struct summary summary = summarise(status);
    fprintf(stderr, "unshard: %s: %s of %s read in %.*f s, %s; %u of %u shards verified (%s)",
            unshard_printable(quoted, sizeof quoted, path, strlen(path)),
            unshard_human_bytes(bytes, status->bytes_read),
            unshard_human_bytes(total, status->bytes_total), status->reading_seconds < 10 ? 1 : 0,
            status->reading_seconds, unshard_human_rate(rate, rate_of(status)),
            summary.states[UNSHARD_STATE_VERIFIED], summary.shards,
            *summary.digests ? summary.digests : "no digest is known");
    if (summary.slowest)
        fprintf(stderr, "; slowest %s, %s a read, %s in all",
                unshard_printable(file, sizeof file, summary.slowest->path,
                                  strlen(summary.slowest->path)),
                unshard_human_rate(rate, summary.slowest_rate),
                unshard_human_duration(duration, summary.slowest->reading_seconds));
    fputc('\n', stderr);
    print_errors(status);
}

static cJSON *slowest_json(const struct summary *summary)
{
    if (!summary->slowest)
        return cJSON_CreateNull();
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "file", summary->slowest->path);
    cJSON_AddNumberToObject(out, "bytes_read", (double)summary->slowest->bytes_read);
    cJSON_AddNumberToObject(out, "reading_seconds", summary->slowest->reading_seconds);
    cJSON_AddNumberToObject(out, "rate_bytes_per_second", summary->slowest_rate);
    return out;
}

static cJSON *mount_json(const char *path, const struct unshard_status *status)
{
    cJSON *out = cJSON_CreateObject();
    struct summary summary = summarise(status);
    cJSON_AddStringToObject(out, "mountpoint", path);
    cJSON_AddStringToObject(out, "source", status->source ? status->source : path);
    cJSON_AddStringToObject(out, "state", unshard_mount_state_name(status->state));
    cJSON_AddNumberToObject(out, "bytes_total", (double)status->bytes_total);
    cJSON_AddNumberToObject(out, "bytes_read", (double)status->bytes_read);
    cJSON_AddNumberToObject(out, "bytes_published", (double)status->bytes_published);
    cJSON_AddNumberToObject(out, "reading_seconds", status->reading_seconds);
    cJSON_AddNumberToObject(out, "rate_bytes_per_second", rate_of(status));
    cJSON_AddNumberToObject(out, "shards", summary.shards);
    cJSON_AddNumberToObject(out, "verified", summary.states[UNSHARD_STATE_VERIFIED]);
    cJSON_AddNumberToObject(out, "unverified", summary.states[UNSHARD_STATE_UNVERIFIED]);
    cJSON_AddNumberToObject(out, "failed", summary.states[UNSHARD_STATE_FAILED]);
    cJSON_AddStringToObject(out, "digests", summary.digests);
    cJSON_AddItemToObject(out, "slowest", slowest_json(&summary));
    cJSON_AddNumberToObject(out, "errors", status->errors);
    return out;
}

static cJSON *no_status_json(const char *path, const char *message)
{
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "mountpoint", path);
    cJSON_AddStringToObject(out, "message", message);
    return out;
}

static void print_json(cJSON *mounts)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddItemToObject(root, "mounts", mounts);
    char *text = cJSON_PrintUnformatted(root);
    if (text) {
        terminal_put_json(stderr, text);
        fputc('\n', stderr);
    }
    cJSON_free(text);
    cJSON_Delete(root);
}

void run_report_summary(const struct run_report *report, bool json)
{
    cJSON *mounts = json ? cJSON_CreateArray() : NULL;
    for (unsigned i = 0; i < report->count; i++) {
        char message[1200];
        const char *path = report->paths[i];
        struct unshard_status *status = read_status(path, message, sizeof message);
        if (json)
            cJSON_AddItemToArray(mounts,
                                 status ? mount_json(path, status) : no_status_json(path, message));
        else if (status)
            print_text(path, status);
        else
            fprintf(stderr, "unshard: %s\n", message);
        unshard_status_free(status);
    }
    if (json)
        print_json(mounts);
}
