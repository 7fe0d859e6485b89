/* SPDX-License-Identifier: MIT */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/error_json.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"
#include "fs/cli/status_client.h"
#include "fs/cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HIDE_CURSOR "\033[?25l"
#define SHOW_CURSOR "\033[?25h"

static volatile sig_atomic_t interrupted;

static void note_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* Without SA_RESTART, so that the wait between two pictures ends at once. */
static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = note_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Over the last picture; a last row stays free, as its newline would scroll. */
static void print_picture(const struct unshard_status *status)
{
    unsigned rows = terminal_rows(stdout);
    struct unshard_screen screen = {terminal_columns(stdout), rows > 1 ? rows - 1 : rows, true};
    char *text = unshard_status_picture(status, &screen);
    fputs("\033[H", stdout);
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        printf("%.*s\033[K\n", (int)(end - line), line);
        line = *end ? end + 1 : end;
    }
    fputs("\033[J", stdout);
    free(text);
}

static void print_json(const char *json)
{
    size_t length = strlen(json);
    terminal_put_json(stdout, json);
    if (length == 0 || json[length - 1] != '\n')
        putchar('\n');
}

static void print_text(const struct unshard_status *status)
{
    struct unshard_screen screen = {terminal_columns(stdout), 0, terminal_takes_escapes(stdout)};
    char *text = unshard_status_picture(status, &screen);
    fputs(text ? text : "", stdout);
    free(text);
}

/* One picture of --watch: the whole on a terminal, one line elsewhere. */
static void print_again(const struct unshard_status *status)
{
    if (terminal_takes_escapes(stdout)) {
        print_picture(status);
        return;
    }
    char *line = unshard_status_summary(status);
    puts(line ? line : "");
    free(line);
}

/* JSON is handed on as it is, whatever its schema. */
static int show_json(const char *json, bool as_json, void (*print)(const struct unshard_status *))
{
    struct unshard_status *status = unshard_status_parse(json);
    if (!status && !as_json) {
        fputs("unshard status: the status is of a version that this program does not know\n",
              stderr);
        return EXIT_STATUS_FAILED;
    }
    bool unwell = status && status_client_unwell(status);
    if (as_json)
        print_json(json);
    else
        print(status);
    unshard_status_free(status);
    fflush(stdout);
    return unwell ? EXIT_STATUS_UNWELL : EXIT_STATUS_OK;
}

static void wait_seconds(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    nanosleep(&time, NULL);
}

static const char *absence_code(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return "not-mounted";
    case ENOTCONN:
    case ECONNABORTED:
        return "daemon-died";
    case ETIMEDOUT:
        return "no-answer";
    case EACCES:
        return "no-permission";
    default:
        return "unreadable";
    }
}

/* There is no status to be had. */
static int report_absence(const struct options *options, const char *message, int number)
{
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    fprintf(stderr, "unshard status: %s\n", message);
    if (!options->json)
        return EXIT_STATUS_FAILED;
    unshard_error_set(&error, absence_code(number), number, "%s", message);
    char *json = error_json_object(&error);
    if (json)
        puts(json);
    free(json);
    return EXIT_STATUS_FAILED;
}

/* Until interrupted, or until the mount is gone: both are how a watch ends well. */
static int watch_until_the_end(const char *path, const struct options *options)
{
    char message[1200];
    int number = 0, status = EXIT_STATUS_OK;
    bool seen = false;
    while (!interrupted && !ferror(stdout)) {
        char *json = bounded_read_status(path, ANSWER_MS, message, sizeof message, &number);
        if (!json) {
            if (seen && (number == ENOENT || number == ENOTDIR)) {
                fprintf(stderr, "unshard status: %s is no longer mounted\n", path);
                return status;
            }
            return report_absence(options, message, number);
        }
        seen = true;
        status = show_json(json, options->json, print_again);
        free(json);
        if (status == EXIT_STATUS_FAILED)
            return status;
        if (!interrupted)
            wait_seconds(options->interval);
    }
    return status;
}

static int watch(const char *path, const struct options *options)
{
    bool pictures = terminal_takes_escapes(stdout) && !options->json;
    catch_interrupts();
    fputs(pictures ? "\033[2J" HIDE_CURSOR : "", stdout);
    int status = watch_until_the_end(path, options);
    fputs(pictures ? SHOW_CURSOR : "", stdout);
    fflush(stdout);
    return status;
}

static int show(const struct options *options)
{
    const char *path = options->mount.source;
    char message[1200];
    int number;
    if (options->watch)
        return watch(path, options);
    char *json = bounded_read_status(path, ANSWER_MS, message, sizeof message, &number);
    if (!json)
        return report_absence(options, message, number);
    int status = show_json(json, options->json, print_text);
    free(json);
    return status;
}

int command_status(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("status", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = show(&options);
    options_release(&options);
    return status;
}
