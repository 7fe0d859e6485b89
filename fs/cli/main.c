/* SPDX-License-Identifier: MIT
 *
 * unshard COMMAND [ARGUMENT...] */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/size_text.h"
#include "fs/host/descriptor_limit.h"
#include "fs/mount/supervisor.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", command_run},       {"mount", command_mount},     {"umount", command_umount},
    {"status", command_status}, {"wait", command_wait},       {"evict", command_evict},
    {"warm", command_warm},     {"list", command_list},       {"doctor", command_doctor},
    {"ls", command_ls},         {"export", command_export},   {"verify", command_verify},
    {"seal", command_seal},     {"upgrade", command_upgrade},
};

static int unknown_command(const char *name)
{
    const char *nearest = NULL;
    unsigned least = 3;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        unsigned distance = edit_distance(name, commands[i].name);
        if (distance < least && distance < strlen(commands[i].name)) {
            least = distance;
            nearest = commands[i].name;
        }
    }
    fprintf(stderr, "unshard: unknown command '%.64s'", name);
    if (nearest)
        fprintf(stderr, "; did you mean '%s'?", nearest);
    fputs("\nTry 'unshard --help'.\n", stderr);
    return EXIT_STATUS_USAGE;
}

/* What was printed must have arrived: a full disk behind a redirection is a failure. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("unshard: standard output");
    return status == EXIT_STATUS_OK ? EXIT_STATUS_FAILED : status;
}

static bool is_mount_helper(const char *program)
{
    static const char suffix[] = "mount.unshard";
    size_t length = strlen(program), suffix_length = sizeof suffix - 1;
    return length >= suffix_length && strcmp(program + length - suffix_length, suffix) == 0;
}

int main(int argc, char **argv)
{
    int status;
    descriptor_limit_raise();
    if (supervisor_is_this(&status))
        return status;
    if (argc > 0 && is_mount_helper(argv[0]))
        return finish(command_mount_helper(argc, argv));
    if (argc < 2) {
        option_table_print_overview(stderr);
        return EXIT_STATUS_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        option_table_print_overview(stdout);
        return finish(EXIT_STATUS_OK);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts("unshard " UNSHARD_VERSION);
        return finish(EXIT_STATUS_OK);
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return finish(commands[i].run(argc - 1, argv + 1));
    }
    return unknown_command(name);
}
