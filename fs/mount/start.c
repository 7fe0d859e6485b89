/* SPDX-License-Identifier: MIT */
#include "fs/mount/start.h"

#include <errno.h>
#include <string.h>

enum { GIVEN = 1, VISIBLE = 2, PRIVATE = 4, FIRST_GROUP = 8, TERMINAL = 16, BOUND = 32 };

/* Directory, source, mountpoint and shown, before the arguments. */
#define PLACES 4u

struct kept_start {
    uint32_t flags, number, connection, argc;
    char strings[]; /* one after the other, each with its zero */
};

static uint32_t flags_of(const struct start *start)
{
    return (start->given ? GIVEN : 0) | (start->visible ? VISIBLE : 0) |
           (start->private ? PRIVATE : 0) | (start->first_group ? FIRST_GROUP : 0) |
           (start->terminal ? TERMINAL : 0) | (start->bound ? BOUND : 0);
}

int start_keep(struct unshard_keep *keep, const struct start *start)
{
    const char *places[PLACES] = {start->directory, start->source, start->mountpoint, start->shown};
    size_t bytes = sizeof(struct kept_start);
    if (start->argc > START_ARGUMENTS)
        return -E2BIG;
    for (unsigned i = 0; i < PLACES + start->argc; i++)
        bytes += strlen(i < PLACES ? places[i] : start->argv[i - PLACES]) + 1;
    struct kept_start *kept = unshard_keep_add(keep, UNSHARD_KEEP_START, bytes);
    if (!kept)
        return -ENOSPC;
    kept->flags = flags_of(start);
    kept->number = start->number;
    kept->connection = start->connection;
    kept->argc = start->argc;
    char *at = kept->strings;
    for (unsigned i = 0; i < PLACES + start->argc; i++)
        at = stpcpy(at, i < PLACES ? places[i] : start->argv[i - PLACES]) + 1;
    unshard_keep_commit(kept);
    return 0;
}

/* The next string. NULL: it does not end within the record. */
static const char *next_string(const char **at, const char *end)
{
    const char *string = *at,
               *zero = string < end ? memchr(string, 0, (size_t)(end - string)) : NULL;
    *at = zero ? zero + 1 : end;
    return zero ? string : NULL;
}

static int take(void *context, void *record, size_t bytes)
{
    struct start *out = context;
    const struct kept_start *kept = record;
    if (bytes < sizeof *kept || kept->argc == 0 || kept->argc > START_ARGUMENTS)
        return -EPROTO;
    *out = (struct start){
        .given = kept->flags & GIVEN,
        .visible = kept->flags & VISIBLE,
        .private = kept->flags & PRIVATE,
        .first_group = kept->flags & FIRST_GROUP,
        .terminal = kept->flags & TERMINAL,
        .bound = kept->flags & BOUND,
        .number = kept->number,
        .connection = kept->connection,
        .argc = kept->argc,
    };
    const char **places[PLACES] = {&out->directory, &out->source, &out->mountpoint, &out->shown};
    const char *at = kept->strings, *end = (const char *)record + bytes;
    for (unsigned i = 0; i < PLACES + out->argc; i++) {
        const char **string = i < PLACES ? places[i] : &out->argv[i - PLACES];
        *string = next_string(&at, end);
        if (!*string)
            return -EPROTO;
    }
    return 1;
}

int start_read(struct unshard_keep *keep, struct start *out)
{
    int result = unshard_keep_each(keep, UNSHARD_KEEP_START, take, out);
    return result > 0 ? 0 : result < 0 ? result : -ENOENT;
}
