/* SPDX-License-Identifier: MIT
 *
 * unshard run: a command that sees checkpoints merged in their own place.
 *
 *   unshard run ──┬─ enters a namespace, mounts, becomes COMMAND
 *                 └─ daemon: one for each source, outside of the namespace, nobody's child
 *
 * This process becomes the command, so that the command has its pid, parent, terminal, standard
 * input and signals, and ends as itself. Nobody has to wait for the last process of the namespace:
 * the kernel does, takes the mounts away, and by that ends the connections, which ends the daemons.
 * The daemons see the sources where they always were, since the mounts that cover them are in the
 * namespace only. Only for --summary is there a process that waits (supervise.h). */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/run_report.h"
#include "fs/host/daemon.h"
#include "fs/host/descriptor_limit.h"
#include "fs/host/descriptors.h"
#include "fs/host/mount_table.h"
#include "fs/host/mountpoint.h"
#include "fs/host/namespace.h"
#include "fs/host/orphans.h"
#include "fs/host/supervise.h"
#include "fs/mount/private_mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As env(1), timeout(1) and others: the command's own statuses stay apart from ours. */
#define EXIT_STATUS_NOT_RUN 125

/* A source, and where the command sees it; both canonical and owned. */
struct place {
    char *source, *at;
};

struct run {
    int argc;
    char **argv; /* as given */
    struct options options;
    struct place *places;
    unsigned count; /* of places, and of daemons */
    struct orphans daemons;
    struct namespace_entry namespace;
    struct unshard_error error;
};

/* ---- where -------------------------------------------------------------------------------------
 */

static int check_directory(const char *path, struct unshard_error *error)
{
    char quoted[256];
    struct stat status;
    struct mount_entry entry;
    unshard_quote(quoted, sizeof quoted, path, strlen(path));
    if (mountpoint_find(path, &entry) == 0 && mount_table_is_unshard(entry.type))
        return unshard_error_set(error, "mountpoint", EBUSY,
                                 "%s: mounted by unshard already, so the command can be run "
                                 "without; or 'unshard umount' it first",
                                 quoted);
    if (stat(path, &status))
        return unshard_error_set(error, "path", errno, "%s: %s", quoted, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return unshard_error_set(error, "path", ENOTDIR, "%s: not a directory", quoted);
    if (!strcmp(path, "/"))
        return unshard_error_set(error, "path", EINVAL,
                                 "the root directory cannot be covered: name one below it");
    return 0;
}

/* One must not hide the other. */
static int check_apart(const struct run *run, const char *at, struct unshard_error *error)
{
    char quoted[2][256];
    for (unsigned i = 0; i < run->count; i++) {
        const char *other = run->places[i].at;
        if (!mountpoint_contains(other, at) && !mountpoint_contains(at, other))
            continue;
        unshard_quote(quoted[0], sizeof quoted[0], at, strlen(at));
        unshard_quote(quoted[1], sizeof quoted[1], other, strlen(other));
        return unshard_error_set(error, "mountpoint", EINVAL,
                                 "%s and %s: one would hide the other; name the upper one alone",
                                 quoted[0], quoted[1]);
    }
    return 0;
}

static int add_place(struct run *run, const struct run_source *source)
{
    struct place place = {NULL, NULL};
    int result = mountpoint_resolve(source->source, &place.source, &run->error);
    if (!result)
        result =
            mountpoint_resolve(source->at ? source->at : source->source, &place.at, &run->error);
    if (!result)
        result = check_directory(place.at, &run->error);
    if (!result)
        result = check_apart(run, place.at, &run->error);
    if (!result) {
        run->places[run->count++] = place;
        return 0;
    }
    free(place.source);
    free(place.at);
    return result;
}

static int find_places(struct run *run)
{
    int result = 0;
    run->places = calloc(run->options.source_count, sizeof *run->places);
    if (!run->places)
        return unshard_error_set(&run->error, "no-memory", ENOMEM, "out of memory");
    for (size_t i = 0; !result && i < run->options.source_count; i++)
        result = add_place(run, &run->options.sources[i]);
    return result;
}

/* ---- daemons and mounts ------------------------------------------------------------------------
 */

static int serve(void *context, unsigned number, int link)
{
    const struct run *run = context;
    struct mount_options options = run->options.mount;
    struct private_view view = {
        .path = run->places[number].at, .number = number, .argc = run->argc, .argv = run->argv};
    options.source = run->places[number].source;
    return mount_privately(&options, &view, link);
}

/* What a daemon that has ended said. */
static int daemon_error(struct run *run, unsigned number)
{
    struct daemon_link link = {.fd = run->daemons.links[number]};
    char words[DAEMON_WORDS_CAPACITY];
    if (daemon_wait(&link, words))
        return 0;
    return unshard_error_set(&run->error, "daemon", EIO, "%s",
                             *words ? words : "the daemon ended; its log may say why");
}

static int mount_place(struct run *run, unsigned number)
{
    const struct place *place = &run->places[number];
    const char *fsname = run->options.mount.fsname ? run->options.mount.fsname : place->source;
    struct private_mount mounted = {.first_group_alone = run->namespace.own_alone};
    int fds[3] = {-1, -1, run->namespace.user_namespace};
    int result = namespace_mount(place->at, fsname, &fds[0], &fds[1], &run->error);
    if (result)
        return result;
    result = mountpoint_connection(fds[1], &mounted.connection);
    if (!result)
        result = descriptors_send(run->daemons.links[number], fds, fds[2] < 0 ? 2 : 3, &mounted,
                                  sizeof mounted);
    close(fds[0]);
    close(fds[1]);
    if (result == -EPIPE)
        return daemon_error(run, number);
    return result ? unshard_error_set(&run->error, "mount", -result,
                                      "cannot hand the mount to its daemon: %s", strerror(-result))
                  : 0;
}

static int wait_until_mounted(struct run *run)
{
    int result = 0;
    for (unsigned i = 0; !result && i < run->count; i++)
        result = daemon_error(run, i);
    for (unsigned i = 0; !result && i < run->count; i++)
        if (!daemon_accept(&(struct daemon_link){.fd = run->daemons.links[i]}))
            result = unshard_error_set(&run->error, "daemon", EIO, "the daemon has ended");
    return result;
}

/* The directory that this process is in may be covered now: then it is to be in what covers it. */
static void enter_covered_directory(const struct run *run, const char *directory)
{
    for (unsigned i = 0; directory && i < run->count; i++)
        if (mountpoint_contains(run->places[i].at, directory) && chdir(directory))
            errno = 0; /* the mount does not have it: it stays in the one that is covered */
}

static int mount_all(struct run *run)
{
    char *directory = getcwd(NULL, 0);
    int result = orphans_start(&run->daemons, run->count, serve, run);
    if (result)
        unshard_error_set(&run->error, "fork", -result, "cannot fork: %s", strerror(-result));
    if (!result)
        result = namespace_enter(&run->namespace, &run->error);
    for (unsigned i = 0; !result && i < run->count; i++)
        result = mount_place(run, i);
    if (!result)
        result = wait_until_mounted(run);
    if (!result) {
        enter_covered_directory(run, directory);
        orphans_release(&run->daemons);
        namespace_restrict(&run->namespace);
    }
    free(directory);
    return result;
}

/* ---- the command -------------------------------------------------------------------------------
 */

static int run_with_summary(const struct run *run, const struct run_report *report)
{
    int status;
    int result = supervise(run->options.command, &status);
    if (result) {
        fprintf(stderr, "unshard run: cannot fork: %s\n", strerror(-result));
        return EXIT_STATUS_NOT_RUN;
    }
    run_report_summary(report, run->options.json);
    supervise_end_like(status);
}

static int run_command(const struct run *run)
{
    const char *paths[64];
    struct run_report report = {.paths = paths, .count = run->count};
    for (unsigned i = 0; i < run->count; i++)
        paths[i] = run->places[i].at;
    if (run->options.progress)
        run_report_start_progress(&report);
    descriptor_limit_restore();
    return run->options.summary ? run_with_summary(run, &report)
                                : supervise_exec(run->options.command);
}

static void release(struct run *run)
{
    orphans_release(&run->daemons);
    for (unsigned i = 0; i < run->count; i++) {
        free(run->places[i].source);
        free(run->places[i].at);
    }
    free(run->places);
    options_release(&run->options);
}

/* In a process that goes on with the mount of one source: there is no command to be run. */
static int serve_on(struct run *run)
{
    struct mount_options options = run->options.mount; /* which are freed there */
    run->options.mount = (struct mount_options){0};
    struct private_view view = {.argc = run->argc, .argv = run->argv};
    return mount_privately(&options, &view, -1);
}

int command_run(int argc, char **argv)
{
    struct run run = {.argc = argc, .argv = argv, .namespace = {.user_namespace = -1}};
    int parsed = options_parse_or_print("run", argc, argv, &run.options);
    int status = parsed < 0 ? EXIT_STATUS_NOT_RUN : EXIT_STATUS_OK;
    if (parsed == 0 && mount_goes_on()) {
        status = serve_on(&run);
    } else if (parsed == 0) {
        int result = find_places(&run);
        if (!result)
            result = mount_all(&run);
        if (result)
            fprintf(stderr, "unshard run: %s\n", run.error.message);
        status = result ? EXIT_STATUS_NOT_RUN : run_command(&run);
    }
    release(&run);
    return status;
}
