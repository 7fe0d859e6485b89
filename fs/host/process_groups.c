/* SPDX-License-Identifier: MIT */
#include "fs/host/process_groups.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Linux allows 65,536 groups. */
#define MOST_BYTES ((size_t)1 << 20)

/* What follows a name in the text, as "\nGroups:\t"; names of programs have no newline there. */
static const char *find(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? at + strlen(name) : NULL;
}

/* The next number of a line; false: there is none. */
static bool take_number(const char **at, unsigned long *out)
{
    char *end;
    *at += strspn(*at, " \t");
    if (**at < '0' || **at > '9')
        return false;
    *out = strtoul(*at, &end, 10);
    *at = end;
    return true;
}

/* Of "real effective saved filesystem" the last one, which the kernel checks files by. */
static bool is_by(const char *text, const char *name, unsigned long expected)
{
    const char *at = find(text, name);
    unsigned long number = 0;
    bool found = at != NULL;
    for (int i = 0; i < 4 && found; i++)
        found = take_number(&at, &number);
    return found && number == expected;
}

int process_groups_parse(const char *text, uid_t uid, gid_t gid, gid_t **groups, unsigned *count)
{
    const char *line = find(text, "\nGroups:"), *at = line;
    unsigned long number;
    unsigned found = 0;
    *groups = NULL;
    *count = 0;
    if (!line || !is_by(text, "\nUid:", uid) || !is_by(text, "\nGid:", gid))
        return -ESRCH;
    while (take_number(&at, &number))
        found++;
    if (*at != '\n')
        return -EBADMSG;
    if (found == 0)
        return 0;
    *groups = calloc(found, sizeof **groups);
    if (!*groups)
        return -ENOMEM;
    for (at = line; *count < found && take_number(&at, &number);)
        (*groups)[(*count)++] = (gid_t)number;
    return 0;
}

/* NULL: it can't be read, or is no text of a process. */
static char *read_text(FILE *file)
{
    size_t capacity = 4096, length = 0;
    char *text = malloc(capacity);
    while (text) {
        length += fread(text + length, 1, capacity - length - 1, file);
        text[length] = '\0';
        if (length + 1 < capacity && !ferror(file))
            return text;
        char *larger = capacity < MOST_BYTES && !ferror(file) ? realloc(text, capacity *= 2) : NULL;
        if (!larger)
            free(text);
        text = larger;
    }
    return NULL;
}

int process_groups_read(pid_t process, uid_t uid, gid_t gid, gid_t **groups, unsigned *count)
{
    char path[64];
    *groups = NULL;
    *count = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    FILE *file = process > 0 ? fopen(path, "re") : NULL;
    if (!file)
        return -ESRCH;
    char *text = read_text(file);
    int result = text ? process_groups_parse(text, uid, gid, groups, count) : -EIO;
    free(text);
    fclose(file);
    return result;
}
