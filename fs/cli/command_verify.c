/* SPDX-License-Identifier: MIT
 *
 * unshard verify: check a checkpoint against every digest known of it. Works without a mount. */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/report_text.h"

#include <stdlib.h>

static int run(const struct options *options, struct progress_line *line,
               struct unshard_report **report, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint;
    int result =
        unshard_checkpoint_open(options->mount.source, &options->mount.view, &checkpoint, error);
    if (result < 0)
        return result;
    result = unshard_verify(checkpoint, &options->mount.fetch, report_show_progress, line, report,
                            error);
    unshard_checkpoint_close(checkpoint);
    return result;
}

static int print(const struct options *options, const struct unshard_report *report, double seconds)
{
    enum unshard_outcome outcome = unshard_report_outcome(report);
    if (options->json) {
        char *json = unshard_report_json(report, NULL);
        puts(json != NULL ? json : "{\"schema\":1,\"error\":{\"code\":\"no-memory\"}}");
        free(json);
    } else {
        report_print_verified(stdout, report, seconds);
    }
    if (outcome == UNSHARD_NOTHING_TO_CHECK)
        fprintf(stderr,
                "unshard verify: %s: nothing to check against: no digest is known of any "
                "file; `unshard seal` makes some\n",
                options->mount.source);
    return outcome == UNSHARD_ALL_GOOD           ? EXIT_STATUS_OK
           : outcome == UNSHARD_NOTHING_TO_CHECK ? EXIT_STATUS_NOTHING_TO_CHECK
                                                 : EXIT_STATUS_FAILED;
}

static int verify(const struct options *options)
{
    struct progress_line line;
    struct unshard_report *report = NULL;
    struct unshard_error error = {0};
    progress_begin(&line, stderr);
    int result = run(options, &line, &report, &error);
    progress_end(&line);
    if (result < 0) {
        fprintf(stderr, "unshard verify: %s\n", error.message);
        return EXIT_STATUS_FAILED;
    }
    int status = print(options, report, monotonic_seconds() - line.started);
    unshard_report_free(report);
    return status;
}

int command_verify(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("verify", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = verify(&options);
    options_release(&options);
    return status;
}
