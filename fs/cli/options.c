/* SPDX-License-Identifier: MIT */
#include "fs/cli/options.h"
#include "fs/cli/size_text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CHUNK (UINT64_C(2) << 20)
#define LEAST_CHUNK (UINT64_C(64) << 10)
#define MOST_CHUNK (UINT64_C(64) << 20)
#define MOST_JOBS 256
#define LEAST_BUFFER_CHUNKS 8
/* An unknown name this many edits away from a known one is taken for a slip of the finger. */
#define SUGGESTION_DISTANCE 3

static int fail(struct options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int fail(struct options *options, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): seen only across files */
    vsnprintf(options->message, sizeof options->message, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* ---- looking options up ------------------------------------------------------------------------
 */

/* "status-file" and "status_file" are the same name. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char folded_a = *a == '-' ? '_' : *a, folded_b = *b == '-' ? '_' : *b;
        if (folded_a != folded_b)
            return false;
    }
    return *a == *b;
}

static const struct option_entry *find_option(unsigned command, bool listed, const char *name)
{
    for (size_t i = 0; i < option_table_length; i++) {
        const struct option_entry *option = &option_table[i];
        if (option->listed == listed && (option->commands & command) &&
            same_name(option->name, name))
            return option;
    }
    return NULL;
}

static const struct option_entry *find_letter(unsigned command, char letter)
{
    for (size_t i = 0; i < option_table_length; i++) {
        const struct option_entry *option = &option_table[i];
        if (!option->listed && (option->commands & command) && option->letter == letter)
            return option;
    }
    return NULL;
}

static int fail_unknown(struct options *options, unsigned command, bool listed, const char *name)
{
    const char *nearest = NULL;
    unsigned least = SUGGESTION_DISTANCE + 1;
    for (size_t i = 0; i < option_table_length; i++) {
        const struct option_entry *option = &option_table[i];
        if (option->listed != listed || !(option->commands & command) || !option->help)
            continue;
        unsigned distance = edit_distance(name, option->name);
        if (distance < least && distance < strlen(option->name)) {
            least = distance;
            nearest = option->name;
        }
    }
    const char *prefix = listed ? "" : "--";
    if (nearest)
        return fail(options, "unknown option '%s%.64s'; did you mean '%s%s'?", prefix, name, prefix,
                    nearest);
    return fail(options, "unknown option '%s%.64s'", prefix, name);
}

/* ---- values ------------------------------------------------------------------------------------
 */

static int set_string(char **field, const char *value)
{
    char *copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

static int append_string(char **field, const char *value)
{
    char *both;
    if (!*field)
        return set_string(field, value);
    if (asprintf(&both, "%s,%s", *field, value) < 0)
        return -ENOMEM;
    free(*field);
    *field = both;
    return 0;
}

static int set_choice(struct options *options, const struct option_entry *option, const char *value)
{
    unsigned number = 0;
    size_t length = strlen(value);
    for (const char *word = option->argument; word; number++) {
        const char *end = strchrnul(word, '|');
        if ((size_t)(end - word) == length && memcmp(word, value, length) == 0) {
            /* Every enum of the options has the size and values of an unsigned. */
            memcpy((char *)options + option->offset, &number, sizeof number);
            if (option->offset == offsetof(struct options, mount.fetch.prefetch))
                options->mount.prefetch_said = true;
            return 0;
        }
        word = *end ? end + 1 : NULL;
    }
    return fail(options, "%s=%.64s: must be one of %s", option->name, value, option->argument);
}

static int set_jobs(struct options *options, const struct option_entry *option, const char *value)
{
    uint64_t number;
    if (number_parse(value, &number) < 0 || number < 1 || number > MOST_JOBS)
        return fail(options, "%s=%.64s: must be a number from 1 to %d", option->name, value,
                    MOST_JOBS);
    *(unsigned *)(void *)((char *)options + option->offset) = (unsigned)number;
    return 0;
}

static int set_size(struct options *options, const struct option_entry *option, const char *value)
{
    uint64_t size;
    if (size_parse(value, &size) < 0 || size == 0 || size > INT64_MAX)
        return fail(options, "%s=%.64s: must be a size such as 65536, 64K, 2M or 1G", option->name,
                    value);
    *(uint64_t *)(void *)((char *)options + option->offset) = size;
    return 0;
}

static int set_seconds(struct options *options, const struct option_entry *option,
                       const char *value)
{
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !isfinite(seconds) || seconds < 0.1 || seconds > 86400)
        return fail(options, "--%s %.64s: must be a number of seconds from 0.1 to 86400",
                    option->name, value);
    *(double *)(void *)((char *)options + option->offset) = seconds;
    return 0;
}

/* Of the source that was named last. */
static int set_at(struct options *options, const char *value)
{
    struct run_source *last =
        options->source_count > 0 ? &options->sources[options->source_count - 1] : NULL;
    if (!value || !*value)
        return fail(options, "option '--at' needs a value: PATH");
    if (!last || last->at)
        return fail(options, "--at %.128s: stands behind the SOURCE that is to appear there, once",
                    value);
    return set_string(&last->at, value);
}

/* value is NULL when none was given. */
static int set_option(struct options *options, const struct option_entry *option, const char *value)
{
    char *field = (char *)options + option->offset;
    if (option->kind == OPTION_IGNORED)
        return 0;
    if (option->kind == OPTION_AT)
        return set_at(options, value);
    if (option->kind == OPTION_REFUSED)
        return fail(options, "option '%s': %s", option->name, option->help);
    if (option->kind == OPTION_FLAG && value)
        return fail(options, "option '%s' takes no value, '%.64s' was given", option->name, value);
    if (option->kind == OPTION_FLAG) {
        *(bool *)field = true;
        return 0;
    }
    if (!value || !*value)
        return fail(options, "option '%s' needs a value: %s", option->name, option->argument);
    switch (option->kind) {
    case OPTION_STRING:
        return set_string((char **)(void *)field, value);
    case OPTION_LIST:
        return append_string((char **)(void *)field, value);
    case OPTION_CHOICE:
        return set_choice(options, option, value);
    case OPTION_JOBS:
        return set_jobs(options, option, value);
    case OPTION_SIZE:
        return set_size(options, option, value);
    default:
        return set_seconds(options, option, value);
    }
}

/* ---- -o lists ----------------------------------------------------------------------------------
 */

static int parse_item(unsigned command, char *item, struct options *options)
{
    if (!*item)
        return 0;
    /* "x-systemd.automount" and the like: comments for other programs. */
    if ((item[0] == 'x' || item[0] == 'X') && item[1] == '-' && (command & COMMAND_MOUNT))
        return 0;
    char *value = strchr(item, '=');
    if (value)
        *value++ = '\0';
    const struct option_entry *option = find_option(command, true, item);
    if (!option)
        return fail_unknown(options, command, true, item);
    return set_option(options, option, value);
}

static int parse_list(unsigned command, const char *list, struct options *options)
{
    char *item = malloc(strlen(list) + 1);
    if (!item)
        return -ENOMEM;
    int result = 0;
    while (result == 0 && *list) {
        size_t length = 0;
        for (; *list && *list != ','; list++) {
            if (*list == '\\' && list[1])
                list++;
            item[length++] = *list;
        }
        item[length] = '\0';
        list += *list == ',';
        result = parse_item(command, item, options);
    }
    free(item);
    return result;
}

int options_parse_list(const char *name, const char *list, struct options *options)
{
    const struct command_entry *command = option_table_command(name);
    return command ? parse_list(command->bit, list, options) : -EINVAL;
}

/* ---- arguments ---------------------------------------------------------------------------------
 */

struct arguments {
    const struct command_entry *command;
    int argc, next;
    char **argv;
    unsigned operands;
    struct options *out;
};

/* The value of an option: what is attached to it, or else the next argument. NULL: there is none.
 */
static const char *take_value(struct arguments *arguments, const char *attached)
{
    if (attached && *attached)
        return attached;
    return arguments->next < arguments->argc ? arguments->argv[arguments->next++] : NULL;
}

static int parse_long(struct arguments *arguments, const char *argument)
{
    char name[64];
    const char *equals = strchrnul(argument, '=');
    snprintf(name, sizeof name, "%.*s", (int)(equals - argument), argument);
    const struct option_entry *option = find_option(arguments->command->bit, false, name);
    if (!option)
        return fail_unknown(arguments->out, arguments->command->bit, false, name);
    const char *value = *equals ? equals + 1 : NULL;
    if (option->argument && !value)
        value = take_value(arguments, NULL);
    return set_option(arguments->out, option, value);
}

/* "-f", "-fj", "-n2", "-n 2", "-o list", "-olist". */
static int parse_short(struct arguments *arguments, const char *letters)
{
    for (; *letters; letters++) {
        if (*letters == 'o') {
            const char *list = take_value(arguments, letters + 1);
            if (!list)
                return fail(arguments->out, "option '-o' needs a value");
            return parse_list(arguments->command->bit, list, arguments->out);
        }
        const struct option_entry *option = find_letter(arguments->command->bit, *letters);
        if (!option)
            return fail(arguments->out, "unknown option '-%c'", *letters);
        const char *value = option->argument ? take_value(arguments, letters + 1) : NULL;
        int result = set_option(arguments->out, option, value);
        if (result < 0 || option->argument)
            return result;
    }
    return 0;
}

static int add_source(struct options *options, const char *argument)
{
    size_t count = options->source_count + 1;
    struct run_source *grown = reallocarray(options->sources, count, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    options->sources = grown;
    grown[count - 1] = (struct run_source){0};
    options->source_count = count;
    return set_string(&grown[count - 1].source, argument);
}

static int add_operand(struct arguments *arguments, const char *argument)
{
    const struct command_entry *command = arguments->command;
    struct mount_options *mount = &arguments->out->mount;
    if (arguments->operands == command->most_operands)
        return fail(arguments->out, "one argument too many: '%.128s' (expected: %s)", argument,
                    command->operands);
    if (!*argument)
        return fail(arguments->out, "an empty argument (expected: %s)", command->operands);
    if (command->bit == COMMAND_RUN) {
        arguments->operands++;
        return add_source(arguments->out, argument);
    }
    return set_string(arguments->operands++ == 0 ? &mount->source : &mount->mountpoint, argument);
}

/* The rest is the command line of another program. */
static int take_command(struct arguments *arguments)
{
    if (arguments->next < arguments->argc)
        arguments->out->command = arguments->argv + arguments->next;
    return 0;
}

static int parse_arguments(struct arguments *arguments)
{
    bool options_ended = false;
    int result = 0;
    while (result == 0 && arguments->next < arguments->argc) {
        const char *argument = arguments->argv[arguments->next++];
        if (options_ended || argument[0] != '-' || !argument[1])
            result = add_operand(arguments, argument);
        else if (strcmp(argument, "--") == 0 && arguments->command->bit == COMMAND_RUN)
            return take_command(arguments);
        else if (strcmp(argument, "--") == 0)
            options_ended = true;
        else if (argument[1] == '-')
            result = parse_long(arguments, argument + 2);
        else
            result = parse_short(arguments, argument + 1);
    }
    return result;
}

/* What only the options together can tell. */
static int check_sizes(struct options *options)
{
    const struct unshard_fetch_options *fetch = &options->mount.fetch;
    uint64_t chunk = fetch->chunk_bytes ? fetch->chunk_bytes : DEFAULT_CHUNK;
    if (chunk < LEAST_CHUNK || chunk > MOST_CHUNK || (chunk & (chunk - 1)) != 0)
        return fail(options, "chunk=%llu: must be a power of two from 64K to 64M",
                    (unsigned long long)chunk);
    if (fetch->buffer_bytes && fetch->buffer_bytes < LEAST_BUFFER_CHUNKS * chunk)
        return fail(options, "buffer=%llu: must hold at least %d chunks of %llu",
                    (unsigned long long)fetch->buffer_bytes, LEAST_BUFFER_CHUNKS,
                    (unsigned long long)chunk);
    if (options->mount.allow_other && options->mount.allow_root)
        return fail(options, "allow_other and allow_root exclude each other");
    return 0;
}

static int check_split(unsigned command, struct options *options)
{
    struct unshard_error error = {0};
    if (unshard_split_check(options->mount.split, &error) < 0)
        return fail(options, "%.400s", error.message);
    options->mount.view.split = options->mount.split;
    if (command == COMMAND_EXPORT && !options->mount.split)
        options->mount.view.split = "off"; /* on disk every copy costs */
    return 0;
}

/* What would add to the directory as it is on disk, or take away from it. */
static int check_layout(struct options *options)
{
    const struct unshard_view_options *view = &options->mount.view;
    bool split = view->split && strcmp(view->split, "auto") != 0 && strcmp(view->split, "off") != 0;
    if (view->layout != UNSHARD_LAYOUT_SHARDS || (!split && view->index != UNSHARD_INDEX_HIDE))
        return 0;
    return fail(options, "layout=shards shows what is on disk and nothing else: leave %s out",
                split ? "split=" : "index=hide");
}

static int check_run(unsigned command, struct options *options)
{
    const struct mount_options *mount = &options->mount;
    if (command != COMMAND_RUN)
        return 0;
    if (!options->command)
        return fail(options, "what is to be run? Write -- and its command line behind SOURCE");
    if (options->source_count > 1 && (mount->status_file || mount->metrics_file))
        return fail(options, "%s= is of one SOURCE, and there are %zu",
                    mount->status_file ? "status_file" : "metrics_file", options->source_count);
    if (options->json && !options->summary)
        return fail(options, "--json is for the summary: say --summary, too");
    return 0;
}

static int check_mountpoint(const struct command_entry *command, struct options *options)
{
    struct mount_options *mount = &options->mount;
    if (command->bit != COMMAND_MOUNT || mount->mountpoint)
        return 0;
    if (!mount->over)
        return fail(options, "an argument is missing (expected: SOURCE MOUNTPOINT)");
    return set_string(&mount->mountpoint, mount->source);
}

int options_parse(const char *name, int argc, char **argv, struct options *out)
{
    *out = (struct options){.interval = 1};
    const struct command_entry *command = option_table_command(name);
    if (!command)
        return fail(out, "no such command");
    if (command->bit == COMMAND_EXPORT)
        out->mount.view.order = UNSHARD_ORDER_CANONICAL;
    struct arguments arguments = {
        .command = command, .argc = argc, .next = 1, .argv = argv, .out = out};
    int result = parse_arguments(&arguments);
    if (result < 0 || out->help)
        return result;
    if (arguments.operands < command->least_operands)
        return fail(out, "an argument is missing (expected: %s)", command->operands);
    result = check_run(command->bit, out);
    if (result == 0)
        result = check_mountpoint(command, out);
    if (result == 0)
        result = check_sizes(out);
    if (result == 0)
        result = check_split(command->bit, out);
    return result == 0 ? check_layout(out) : result;
}

void options_release(struct options *options)
{
    for (size_t i = 0; i < options->source_count; i++) {
        free(options->sources[i].source);
        free(options->sources[i].at);
    }
    free(options->sources);
    options->sources = NULL;
    options->source_count = 0;
    options_free(&options->mount);
}

int options_parse_or_print(const char *name, int argc, char **argv, struct options *out)
{
    int result = options_parse(name, argc, argv, out);
    if (result < 0) {
        fprintf(stderr, "unshard %s: %s\nTry 'unshard %s --help'.\n", name,
                result == -EINVAL ? out->message : strerror(-result), name);
        return -EINVAL;
    }
    if (!out->help)
        return 0;
    option_table_print_help(stdout, option_table_command(name));
    return 1;
}

int options_parse_mount(int argc, char **argv, struct mount_options *out)
{
    struct options options;
    int result = options_parse_or_print("mount", argc, argv, &options);
    if (result != 0)
        options_release(&options);
    *out = options.mount;
    return result;
}

void options_free(struct mount_options *options)
{
    free(options->source);
    free(options->mountpoint);
    free(options->split);
    free(options->status_file);
    free(options->metrics_file);
    free(options->fsname);
    free(options->log_path);
    *options = (struct mount_options){0};
}
