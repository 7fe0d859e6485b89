/* SPDX-License-Identifier: MIT */
#include "fs/kernel/xattrs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tree/model.h"

static const char names[] = "user.unshard.state\0user.unshard.shards\0user.unshard.digest\0"
                            "user.unshard.errors";

/* How many source files a view is made of. */
static unsigned shard_count(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    int32_t component = unshard_view_component(checkpoint, view);
    if (component < 0 || checkpoint->components[component].view != view)
        return 1;
    return checkpoint->components[component].file_count;
}

/* Takes `text` over. */
static ssize_t give(char *text, char **out)
{
    *out = text;
    return text != NULL ? (ssize_t)strlen(text) : -ENOMEM;
}

ssize_t xattr_value(const struct filesystem *filesystem, uint32_t view, const char *name,
                    char **out)
{
    char digits[16];
    if (!strcmp(name, "user.unshard.state"))
        return give(strdup(unshard_view_state(filesystem->engine, view)), out);
    if (!strcmp(name, "user.unshard.digest"))
        return give(unshard_view_digest(filesystem->engine, view), out);
    if (!strcmp(name, "user.unshard.errors"))
        return give(unshard_view_errors(filesystem->engine, view), out);
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
