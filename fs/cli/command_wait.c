/* SPDX-License-Identifier: MIT
 *
 * unshard wait: for init containers, probes and scripts. */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"
#include "fs/cli/terminal.h"
#include "fs/cli/warmth.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_NS 100000000L
/* Storage that fails is tried again every few seconds; what has not got better for so long is an
 * answer. */
#define PATIENCE_SECONDS 30

enum {
    WAIT_WARM = 0,
    WAIT_FAILED = 1,
    WAIT_TIMED_OUT = 2,
    WAIT_USAGE = 64, /* EX_USAGE: 2 is taken */
};

struct wait_run {
    const char *path;
    const struct options *options;
    double end; /* monotonic_seconds; 0: no limit */
    struct progress_line line;
    bool shown;           /* progress has been begun */
    double failing_since; /* 0: storage does not fail */
};

static double seconds_left(const struct wait_run *run)
{
    return run->end > 0 ? run->end - monotonic_seconds() : ANSWER_MS / 1000.0;
}

static bool is_over(const struct wait_run *run)
{
    return run->end > 0 && monotonic_seconds() >= run->end;
}

/* ---- what is printed ---------------------------------------------------------------------------
 */

static const char *result_word(int result)
{
    return result == WAIT_WARM ? "warm" : result == WAIT_TIMED_OUT ? "timeout" : "failed";
}

static const char *state_of(const struct unshard_status *status)
{
    return unshard_mount_state_name(status ? status->state : UNSHARD_MOUNT_UNKNOWN);
}

static void print_json(const struct unshard_status *status, int result, const struct warmth *warmth,
                       const char *message)
{
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "result", result_word(result));
    cJSON_AddStringToObject(out, "state", state_of(status));
    cJSON_AddNumberToObject(out, "bytes_published", (double)warmth->done);
    cJSON_AddNumberToObject(out, "bytes_total", (double)warmth->total);
    cJSON_AddNumberToObject(out, "errors", status ? status->errors : 0);
    cJSON_AddStringToObject(out, "message", message);
    char *text = cJSON_Print(out);
    if (text) {
        terminal_put_json(stdout, text);
        putchar('\n');
    }
    cJSON_free(text);
    cJSON_Delete(out);
}

/* The last word, and the exit status of the command. */
static int finish(struct wait_run *run, const struct unshard_status *status, int result,
                  const char *message)
{
    struct warmth warmth = {0};
    char done[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY];
    if (status)
        warmth_of(status, run->options->verified, &warmth);
    if (run->shown)
        progress_end(&run->line);
    if (run->options->json)
        print_json(status, result, &warmth, message);
    if (result != WAIT_WARM)
        fprintf(stderr, "unshard wait: %s\n", message);
    else if (!run->options->json)
        printf("%s: %s, %s of %s in the page cache\n", run->path, message,
               unshard_human_bytes(done, warmth.done), unshard_human_bytes(total, warmth.total));
    return result;
}

static void show_progress(struct wait_run *run, const struct warmth *warmth)
{
    if (run->options->json)
        return;
    if (!run->shown)
        progress_begin(&run->line, stderr);
    run->shown = true;
    progress_show(&run->line, warmth->unfinished, warmth->done, warmth->total);
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

/* Whether storage that fails may get better within the time that there is. */
static bool may_heal(struct wait_run *run, enum warmth_state state)
{
    double now = monotonic_seconds();
    if (state != WARMTH_FAILING)
        run->failing_since = 0;
    else if (run->failing_since <= 0)
        run->failing_since = now;
    return state == WARMTH_FAILING && now - run->failing_since < PATIENCE_SECONDS && !is_over(run);
}

/* Looks once. True when there is nothing more to wait for, with the exit status in *result. */
static bool look(struct wait_run *run, int *result)
{
    char message[1200];
    int number;
    char *json = bounded_read_status(run->path, (int)(seconds_left(run) * 1000) + 100, message,
                                     sizeof message, &number);
    /* Where there is a limit, a mount that does not exist yet is waited for as well. */
    bool absent = number == ENOENT || number == ENOTDIR || number == ETIMEDOUT;
    if (!json && run->end > 0 && absent && !is_over(run))
        return false;
    bool late = !json && run->end > 0 && absent;
    if (!json) {
        *result = finish(run, NULL, late ? WAIT_TIMED_OUT : WAIT_FAILED, message);
        return true;
    }
    struct warmth warmth;
    struct unshard_status *status = unshard_status_parse(json);
    free(json);
    enum warmth_state state = warmth_of(status, run->options->verified, &warmth);
    bool ended = state != WARMTH_RISING && !may_heal(run, state);
    if (ended) {
        *result =
            finish(run, status, state == WARMTH_REACHED ? WAIT_WARM : WAIT_FAILED, warmth.message);
    } else if (is_over(run)) {
        snprintf(message, sizeof message, "%s: not %s within %g s: %u %% (%s)", run->path,
                 run->options->verified ? "warm and verified" : "warm", run->options->timeout,
                 unshard_human_percent(warmth.done, warmth.total), state_of(status));
        *result = finish(run, status, WAIT_TIMED_OUT, message);
        ended = true;
    } else {
        show_progress(run, &warmth);
    }
    unshard_status_free(status);
    return ended;
}

static int wait_for_mount(const struct options *options)
{
    struct wait_run run = {.path = options->mount.source, .options = options};
    int result = WAIT_FAILED;
    if (options->timeout > 0)
        run.end = monotonic_seconds() + options->timeout;
    while (!look(&run, &result))
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    return result;
}

int command_wait(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("wait", argc, argv, &options);
    int status = result < 0 ? WAIT_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = wait_for_mount(&options);
    options_release(&options);
    return status;
}
