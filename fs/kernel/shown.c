/* SPDX-License-Identifier: MIT */
#define FUSE_USE_VERSION 312
#include "fs/kernel/shown.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

#include "fs/kernel/inode_table.h"

/* Of each view its node; 0, which is the directory's, for none. NULL when memory is short. */
static uint32_t *map_views(const struct unshard_checkpoint *layout)
{
    uint32_t views = unshard_view_count(layout);
    uint32_t *nodes = calloc((size_t)views + 1, sizeof *nodes);
    for (uint32_t i = 0; nodes && i < unshard_node_count(layout); i++) {
        uint32_t view = unshard_node(layout, i)->view;
        if (view < views)
            nodes[view] = i;
    }
    return nodes;
}

static int each_file(struct unshard_checkpoint *layout, bool (*wanted)(void *, uint32_t view),
                     void *wish, shown_found found, void *context)
{
    uint32_t *nodes = map_views(layout);
    int result = nodes ? 0 : -ENOMEM;
    for (uint32_t view = 0; result == 0 && view < unshard_view_count(layout); view++) {
        struct unshard_place place = {.layout = layout, .node = nodes[view]};
        if (place.node != 0 && (!wanted || wanted(wish, view)))
            result = found(context, unshard_view_path(layout, view), &place);
    }
    free(nodes);
    return result;
}

int shown_files(struct unshard_checkpoint *layout, shown_found found, void *context)
{
    return each_file(layout, NULL, NULL, found, context);
}

struct wish {
    const struct unshard_checkpoint *layout;
    int32_t component;
};

static bool shows_component(void *context, uint32_t view)
{
    const struct wish *wish = context;
    return unshard_view_listed(wish->layout, view) &&
           unshard_view_component(wish->layout, view) == wish->component;
}

int shown_of_component(struct unshard_checkpoint *layout, int32_t component, shown_found found,
                       void *context)
{
    struct wish wish = {.layout = layout, .component = component};
    return each_file(layout, shows_component, &wish, found, context);
}

void shown_look_up(const struct filesystem *filesystem, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    uint64_t directory = inode_table_directory(filesystem->inodes, path);
    if (!filesystem->look_up)
        return;
    if (directory)
        fuse_lowlevel_notify_inval_entry(filesystem->session, directory, name, strlen(name));
    filesystem->look_up(filesystem->look_up_context, path);
}
