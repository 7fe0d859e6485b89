/* SPDX-License-Identifier: MIT
 *
 * unshard doctor: all checks, and what they found as a table or as JSON. */
#include "fs/cli/commands.h"
#include "fs/cli/doctor.h"
#include "fs/cli/options.h"
#include "fs/cli/terminal.h"
#include "fs/host/mount_table.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const level_words[] = {"good", "note", "problem"};

void doctor_add(struct doctor *doctor, const char *name, enum finding_level level,
                const char *advice, const char *format, ...)
{
    if (doctor->count == MOST_FINDINGS)
        return;
    struct finding *finding = &doctor->findings[doctor->count++];
    *finding = (struct finding){.name = name, .level = level};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->found, sizeof finding->found, format, arguments);
    va_end(arguments);
    snprintf(finding->advice, sizeof finding->advice, "%s", advice ? advice : "");
}

static void print_json(const struct doctor *doctor)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < doctor->count; i++) {
        const struct finding *finding = &doctor->findings[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "check", finding->name);
        cJSON_AddStringToObject(item, "level", level_words[finding->level]);
        cJSON_AddStringToObject(item, "found", finding->found);
        cJSON_AddStringToObject(item, "advice", finding->advice);
        cJSON_AddItemToArray(array, item);
    }
    char *text = cJSON_Print(array);
    if (text) {
        terminal_put_json(stdout, text);
        putchar('\n');
    }
    cJSON_free(text);
    cJSON_Delete(array);
}

static void print_table(const struct doctor *doctor)
{
    for (size_t i = 0; i < doctor->count; i++) {
        const struct finding *finding = &doctor->findings[i];
        printf("%-8s %-18s %s\n", level_words[finding->level], finding->name, finding->found);
        if (finding->advice[0])
            printf("%*s %s\n", 27, "", finding->advice);
    }
}

struct mount_search {
    const char *path;
    bool found;
};

static int compare(void *context, const struct mounted *mounted)
{
    struct mount_search *search = context;
    if (!strcmp(mounted->mountpoint, search->path))
        search->found = mount_table_is_unshard(mounted->type);
    return 0;
}

/* Decides by the table of mounts, without looking at what may hang. */
static void check_operand(struct doctor *doctor, const char *path)
{
    char *absolute = mount_table_resolve(path);
    struct mount_search search = {absolute ? absolute : path, false};
    mount_table_each(compare, &search);
    if (search.found)
        doctor_check_mount(doctor, search.path);
    else
        doctor_check_source(doctor, path);
    free(absolute);
}

static int examine(const struct options *options)
{
    struct doctor *doctor = calloc(1, sizeof *doctor);
    if (!doctor) {
        fputs("unshard doctor: out of memory\n", stderr);
        return EXIT_STATUS_FAILED;
    }
    doctor_check_machine(doctor);
    if (options->mount.source)
        check_operand(doctor, options->mount.source);
    if (options->json)
        print_json(doctor);
    else
        print_table(doctor);
    int status = EXIT_STATUS_OK;
    for (size_t i = 0; i < doctor->count; i++)
        if (doctor->findings[i].level == FINDING_PROBLEM)
            status = EXIT_STATUS_UNWELL;
    free(doctor);
    return status;
}

int command_doctor(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("doctor", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = examine(&options);
    options_release(&options);
    return status;
}
