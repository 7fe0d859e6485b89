/* SPDX-License-Identifier: MIT */
#include "fs/kernel/xattrs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char names[] = "user.unshard.state\0user.unshard.shards\0user.unshard.digest\0"
                            "user.unshard.errors";

/* How many source files a view is made of. */
static unsigned shard_count(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    int32_t number = unshard_view_component(checkpoint, view);
    if (number < 0)
        return 1;
    struct unshard_component component = unshard_component(checkpoint, (uint32_t)number);
    return component.view == view ? component.shard_count : 1;
}

static char *state_word(const struct unshard_status *status)
{
    return strdup(unshard_state_name(status->view_state));
}

/* Takes `text` over. */
static ssize_t give(char *text, char **out)
{
    *out = text;
    return text != NULL ? (ssize_t)strlen(text) : -ENOMEM;
}

static ssize_t give_rendering(const struct filesystem *filesystem, uint32_t view,
                              char *(*render)(const struct unshard_status *), char **out)
{
    struct unshard_status *status = unshard_status_take(filesystem->engine, view);
    char *text = status != NULL ? render(status) : NULL;
    unshard_status_free(status);
    return give(text, out);
}

ssize_t xattr_value(const struct filesystem *filesystem, uint32_t view, const char *name,
                    char **out)
{
    char digits[16];
    if (!strcmp(name, "user.unshard.state"))
        return give_rendering(filesystem, view, state_word, out);
    if (!strcmp(name, "user.unshard.digest"))
        return give_rendering(filesystem, view, unshard_status_digests, out);
    if (!strcmp(name, "user.unshard.errors"))
        return give_rendering(filesystem, view, unshard_status_errors, out);
    if (!strcmp(name, "user.unshard.shards")) {
        snprintf(digits, sizeof digits, "%u", shard_count(filesystem->checkpoint, view));
        return give(strdup(digits), out);
    }
    return -ENODATA;
}

const char *xattr_names(size_t *length)
{
    *length = sizeof names;
    return names;
}
