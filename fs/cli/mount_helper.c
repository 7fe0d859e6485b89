/* SPDX-License-Identifier: MIT */
#include "fs/cli/commands.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct helper_arguments {
    bool fake;
    bool refused; /* understood, and not possible */
    int argc;     /* of what command_mount gets */
    char **argv;
};

/* Flags may be joined ("-nv"); the letter that takes a value ends the argument. Returns the letter
 * that takes one, 0 when none does, '?' for an unknown letter. */
static char read_flags(const char *flags, struct helper_arguments *out)
{
    for (; *flags; flags++) {
        if (strchr("otN", *flags))
            return flags[1] ? '?' : *flags;
        if (*flags == 'f')
            out->fake = true;
        else if (!strchr("snv", *flags))
            return '?';
    }
    return 0;
}

/* mount(8) says "rw" unless it was told "ro", and a warning for each line of fstab helps nobody. */
static void make_read_only(char *list)
{
    bool starts_item = true;
    for (; *list; list++) {
        if (starts_item && !strncmp(list, "rw", 2) && (list[2] == ',' || !list[2]))
            list[1] = 'o';
        starts_item = *list == ',';
        if (*list == '\\' && list[1])
            list++;
    }
}

static bool has_item(const char *list, const char *wanted)
{
    size_t length = strlen(wanted);
    bool starts_item = true;
    for (; *list; list++) {
        if (starts_item && !strncmp(list, wanted, length) && (list[length] == ',' || !list[length]))
            return true;
        starts_item = *list == ',';
        if (*list == '\\' && list[1])
            list++;
    }
    return false;
}

static int translate(int argc, char **argv, struct helper_arguments *out)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            out->argv[out->argc++] = argv[i];
            continue;
        }
        char letter = read_flags(argv[i] + 1, out);
        if (letter == '?' || (letter && i + 1 == argc)) {
            fprintf(stderr, "mount.unshard: cannot use the argument '%.64s'\n", argv[i]);
            return -1;
        }
        if (letter == 'N') {
            fputs("mount.unshard: mounting in another namespace (-N) is not supported\n", stderr);
            return -1;
        }
        if (letter == 'o' && has_item(argv[i + 1], "remount")) {
            fputs(
                "mount.unshard: nothing of a mount can be changed while it stands (remount); it is "
                "read-only already. For other options unmount it and mount it again.\n",
                stderr);
            out->refused = true;
            return -1;
        }
        if (letter == 'o') {
            out->argv[out->argc++] = argv[i];
            out->argv[out->argc++] = argv[i + 1];
            make_read_only(argv[i + 1]);
        }
        i += letter != 0;
    }
    out->argv[out->argc] = NULL;
    return 0;
}

int command_mount_helper(int argc, char **argv)
{
    static char name[] = "mount";
    struct helper_arguments translated = {.argc = 1};
    translated.argv = calloc((size_t)argc + 2, sizeof *translated.argv);
    if (!translated.argv) {
        fputs("mount.unshard: not enough memory\n", stderr);
        return EXIT_STATUS_FAILED;
    }
    translated.argv[0] = name;
    int status = EXIT_STATUS_USAGE;
    if (translate(argc, argv, &translated) == 0)
        status = translated.fake ? EXIT_STATUS_OK : command_mount(translated.argc, translated.argv);
    free(translated.argv);
    return translated.refused ? EXIT_STATUS_FAILED : status;
}
