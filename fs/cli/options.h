/* SPDX-License-Identifier: MIT
 *
 * The command line of every command: one table (option_table.c) describes all options; parsing,
 * --help and the checks of the manual pages work from it. */
#ifndef FS_CLI_OPTIONS_H
#define FS_CLI_OPTIONS_H

#include "unshard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What `unshard mount` was asked to do. Strings are owned; NULL when not given. */
struct mount_options {
    bool foreground;
    bool prepare; /* only make the mount, and leave it with the service manager */
    bool json;    /* print the result as JSON */
    bool over;    /* mount over the source itself, which mountpoint then is */
    char *source, *mountpoint;
    struct unshard_view_options view;
    char *split;                        /* what view.split points to */
    struct unshard_fetch_options fetch; /* 0 in a field: the default */
    bool prefetch_said;                 /* else what fetch.prefetch is to be the source tells */
    bool allow_other, allow_root;
    char *status_file;  /* where the status JSON is mirrored */
    char *metrics_file; /* where the metrics are */
    char *fsname;       /* what mount(8) and df show as the device; NULL: the source */
    char *log_path;     /* NULL: standard error in the foreground, syslog otherwise */
};

/* What `unshard run` shows where. Strings are owned. */
struct run_source {
    char *source;
    char *at; /* where it appears; NULL: where it is */
};

enum check_against { CHECK_ALL, CHECK_OTHERS, CHECK_NONE };

/* The options of any command; each uses those that the table gives it. */
struct options {
    struct mount_options mount; /* source: the first operand, mountpoint: the second */
    bool all;                   /* of upgrade: every mount */
    bool help, json, tensors, watch, lazy, force, verified;
    double interval; /* seconds */
    double timeout;  /* seconds; 0: none */
    enum check_against check_against;
    bool progress, summary;
    struct run_source *sources; /* of run */
    size_t source_count;
    char **command;    /* of run: behind the "--", a part of argv; NULL: there is none */
    char message[512]; /* why parsing failed; for a person, without the command's name */
};

/* Parses the arguments of the command `name`; argv[0] is the command's name and is skipped. Options
 * and operands may be mixed, "--" ends options. 0 or -EINVAL with out->message; -ENOMEM. *out need
 * not be initialised and is to be freed in every case. */
int options_parse(const char *name, int argc, char **argv, struct options *out);
void options_release(struct options *options);
/* options_parse, then prints --help or the message. 0: go on; 1: help was printed; -EINVAL: a
 * message was printed. *out is to be freed in every case. */
int options_parse_or_print(const char *name, int argc, char **argv, struct options *out);

/* The arguments of `unshard mount`. 0; 1: help was printed; -EINVAL: a message was printed. On 0
 * *out is to be freed with options_free; otherwise it is empty. */
int options_parse_mount(int argc, char **argv, struct mount_options *out);
/* Frees the strings and zeroes *options. */
void options_free(struct mount_options *options);

/* Parses a -o list "name=value,name,...": a backslash takes the next character as it is, so that
 * "\," stands for a comma. As options_parse otherwise, but adds to what is there. */
int options_parse_list(const char *name, const char *list, struct options *options);

/* ---- the table ---------------------------------------------------------------------------------
 */

enum command_bit {
    COMMAND_MOUNT = 1,
    COMMAND_UMOUNT = 2,
    COMMAND_STATUS = 4,
    COMMAND_LS = 8,
    COMMAND_EXPORT = 16,
    COMMAND_VERIFY = 32,
    COMMAND_SEAL = 64,
    COMMAND_WAIT = 256,
    COMMAND_EVICT = 512,
    COMMAND_WARM = 1024,
    COMMAND_LIST = 2048,
    COMMAND_DOCTOR = 4096,
    COMMAND_RUN = 8192,
    COMMAND_UPGRADE = 128,
};

enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_STRING,  /* char *, owned */
    OPTION_LIST,    /* char *, owned: given again, it goes on after a comma */
    OPTION_CHOICE,  /* enum; argument "a|b|c" gives the words in the order of their values */
    OPTION_JOBS,    /* unsigned, 1 to 256 */
    OPTION_SIZE,    /* uint64_t */
    OPTION_SECONDS, /* double */
    OPTION_AT,      /* where the source before it appears */
    OPTION_IGNORED, /* accepted, no effect: what fstab passes on */
    OPTION_REFUSED, /* help tells why */
};

struct option_entry {
    const char *name; /* "json", or "chunk" of -o chunk=... */
    char letter;      /* of a short option, 0 for none; options under -o have none */
    bool listed;      /* an option under -o */
    enum option_kind kind;
    const char *argument; /* what stands after it, NULL for none */
    unsigned commands;    /* of enum command_bit */
    size_t offset;        /* in struct options */
    const char *help;     /* one line; NULL: not shown */
};

struct command_entry {
    const char *name;
    enum command_bit bit;
    const char *operands;
    unsigned least_operands, most_operands;
    const char *summary;
    const char *details; /* after the options in --help; NULL for none */
};

extern const struct option_entry option_table[];
extern const size_t option_table_length;
extern const struct command_entry command_table[];
extern const size_t command_table_length;

/* The entry of a command, or NULL. */
const struct command_entry *option_table_command(const char *name);
/* What `unshard COMMAND --help` prints. */
void option_table_print_help(FILE *out, const struct command_entry *command);
/* What `unshard --help` prints. */
void option_table_print_overview(FILE *out);

#endif
