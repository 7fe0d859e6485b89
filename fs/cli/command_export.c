/* SPDX-License-Identifier: MIT */
#include "fs/cli/commands.h"
#include "fs/cli/error_json.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define PATIENCE_SECONDS 3

struct export_report {
    struct progress_line line;
    uint64_t done, total;
};

static void show_progress(void *context, const char *path, uint64_t done, uint64_t total)
{
    struct export_report *report = context;
    report->done = done;
    report->total = total;
    progress_show(&report->line, path, done, total);
}

static void print_json(const struct options *options, const struct export_report *report,
                       double seconds, const struct unshard_error *error)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "schema", 1);
    cJSON_AddStringToObject(object, "source", options->mount.source);
    cJSON_AddStringToObject(object, "target", options->mount.mountpoint);
    cJSON_AddNumberToObject(object, "bytes_total", (double)report->total);
    cJSON_AddNumberToObject(object, "bytes_done", (double)report->done);
    cJSON_AddNumberToObject(object, "seconds", seconds);
    error_json_add(object, error);
    char *text = cJSON_PrintUnformatted(object);
    puts(text ? text : "{\"schema\":1,\"error\":{\"code\":\"no-memory\"}}");
    cJSON_free(text);
    cJSON_Delete(object);
}

/* ---- signals -----------------------------------------------------------------------------------
 */

static int cancelled; /* read and written atomically */
static int arrived;   /* the signal; the same */

/* Ends as whoever sent the signal expects, whatever hangs. */
static void die_of(int number)
{
    sigset_t set;
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

/* The first signal stops the export, which then removes what is half written. A second one, or
 * storage that hangs, does not wait for that: the next run removes it. */
static void *wait_for_signals(void *argument)
{
    const sigset_t *set = argument;
    struct timespec patience = {.tv_sec = PATIENCE_SECONDS};
    int number = sigwaitinfo(set, NULL);
    if (number > 0) {
        __atomic_store_n(&arrived, number, __ATOMIC_RELAXED);
        __atomic_store_n(&cancelled, 1, __ATOMIC_RELAXED);
        sigtimedwait(set, NULL, &patience);
        die_of(number);
    }
    return NULL;
}

/* For the rest of the process; before there are other threads. Signals that are ignored stay so. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    static sigset_t set;
    struct sigaction before;
    pthread_t thread;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaddset(&set, numbers[i]);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_signals, &set))
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    else
        pthread_detach(thread);
}

/* ---- the export --------------------------------------------------------------------------------
 */

static int run(const struct options *options, struct export_report *report,
               struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint;
    int result =
        unshard_checkpoint_open(options->mount.source, &options->mount.view, &checkpoint, error);
    if (result < 0)
        return result;
    catch_signals(); /* before, nothing has been written */
    result = unshard_export(checkpoint, &options->mount.fetch, options->mount.mountpoint,
                            &cancelled, show_progress, report, error);
    unshard_checkpoint_close(checkpoint);
    return result;
}

static int export_and_report(const struct options *options)
{
    struct export_report report = {0};
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    char bytes[UNSHARD_HUMAN_CAPACITY], duration[UNSHARD_HUMAN_CAPACITY],
        rate[UNSHARD_HUMAN_CAPACITY];
    progress_begin(&report.line, stderr);
    int result = run(options, &report, &error);
    double seconds = monotonic_seconds() - report.line.started;
    progress_end(&report.line);
    if (result < 0)
        fprintf(stderr, "unshard export: %s\n", error.message);
    if (options->json)
        print_json(options, &report, seconds, result < 0 ? &error : NULL);
    else if (result == 0)
        printf("%s: %s in %s, %s\n", options->mount.mountpoint,
               unshard_human_bytes(bytes, report.done), unshard_human_duration(duration, seconds),
               unshard_human_rate(rate, seconds > 0 ? (double)report.done / seconds : 0));
    return result < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_OK;
}

int command_export(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("export", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = export_and_report(&options);
    options_release(&options);
    int number = __atomic_load_n(&arrived, __ATOMIC_RELAXED);
    if (number > 0)
        die_of(number);
    return status;
}
