/* SPDX-License-Identifier: MIT
 *
 * unshard seal: write the digests of all files of a checkpoint to its manifest. The only command
 * that writes to a checkpoint. */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/report_text.h"
#include "fs/host/mount_table.h"
#include "fs/host/mountpoint.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A mount shows a checkpoint, perhaps over its own directory, and cannot be written to: said before
 * all of it is hashed. */
static int check_source(const char *path, struct unshard_error *error)
{
    char quoted[256];
    struct mount_entry entry;
    char *resolved = mount_table_resolve(path);
    bool mounted =
        resolved && mountpoint_find(resolved, &entry) == 0 && mount_table_is_unshard(entry.type);
    free(resolved);
    if (!mounted)
        return 0;
    return unshard_error_set(error, "mounted", EROFS,
                             "%s: this is a mount of unshard, not its source: 'unshard umount' it, "
                             "or name the source",
                             unshard_quote(quoted, sizeof quoted, path, strlen(path)));
}

static int run(const struct options *options, struct progress_line *line,
               struct unshard_report **report, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint;
    int checked = check_source(options->mount.source, error);
    if (checked < 0)
        return checked;
    struct unshard_view_options view = options->mount.view;
    view.ignore_manifest = options->check_against != CHECK_ALL;
    int result = unshard_checkpoint_open(options->mount.source, &view, &checkpoint, error);
    if (result < 0)
        return result;
    result = unshard_seal(checkpoint, &options->mount.fetch, options->check_against != CHECK_NONE,
                          report_show_progress, line, report, error);
    unshard_checkpoint_close(checkpoint);
    return result;
}

static void print(const struct options *options, const struct unshard_report *report,
                  const struct unshard_error *error, double seconds)
{
    if (options->json) {
        char *json = report != NULL ? unshard_report_json(report, error) : NULL;
        puts(json != NULL ? json : "{\"schema\":1,\"error\":{\"code\":\"no-memory\"}}");
        free(json);
    } else if (report != NULL) {
        report_print_sealed(error != NULL ? stderr : stdout, report, seconds);
    }
    if (error != NULL)
        fprintf(stderr, "unshard seal: %s\n", error->message);
}

static int seal(const struct options *options)
{
    struct progress_line line;
    struct unshard_report *report = NULL;
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    progress_begin(&line, stderr);
    int result = run(options, &line, &report, &error);
    progress_end(&line);
    print(options, report, result < 0 ? &error : NULL, monotonic_seconds() - line.started);
    unshard_report_free(report);
    return result < 0 ? EXIT_STATUS_FAILED : EXIT_STATUS_OK;
}

int command_seal(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("seal", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = seal(&options);
    options_release(&options);
    return status;
}
