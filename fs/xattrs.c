/* SPDX-License-Identifier: MIT */
#include "fs/xattrs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/model.h"

static const char names[] = "user.unshard.state\0user.unshard.shards";

/* How many source files a view is made of. */
static unsigned shard_count(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    int32_t component = unshard_view_component(checkpoint, view);
    if (component < 0 || checkpoint->components[component].view != view)
        return 1;
    return checkpoint->components[component].file_count;
}

ssize_t xattr_value(const struct filesystem *filesystem, uint32_t view, const char *name,
                    char out[64])
{
    if (!strcmp(name, "user.unshard.state"))
        return snprintf(out, 64, "%s", unshard_view_state(filesystem->engine, view));
    if (!strcmp(name, "user.unshard.shards"))
        return snprintf(out, 64, "%u", shard_count(filesystem->checkpoint, view));
    return -ENODATA;
}

const char *xattr_names(size_t *length)
{
    *length = sizeof names;
    return names;
}
