/* SPDX-License-Identifier: MIT */
#include "fs/kernel/xattrs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char names[] = "user.unshard.state\0user.unshard.shards\0user.unshard.digest\0"
                            "user.unshard.errors";

static char *state_word(const struct unshard_status *status)
{
    return strdup(unshard_state_name(status->view_state));
}

static const struct {
    const char *name;
    char *(*render)(const struct unshard_status *status); /* NULL: the layout knows it */
} attributes[] = {
    {"user.unshard.state", state_word},
    {"user.unshard.shards", NULL},
    {"user.unshard.digest", unshard_status_digests},
    {"user.unshard.errors", unshard_status_errors},
};
#define ATTRIBUTE_COUNT (sizeof attributes / sizeof *attributes)

static size_t find(const char *name)
{
    size_t i = 0;
    while (i < ATTRIBUTE_COUNT && strcmp(attributes[i].name, name) != 0)
        i++;
    return i;
}

enum xattr_need xattr_need(const char *name)
{
    size_t i = find(name);
    if (i == ATTRIBUTE_COUNT)
        return XATTR_UNKNOWN;
    return attributes[i].render ? XATTR_OF_ENGINE : XATTR_OF_LAYOUT;
}

/* Takes `text` over. */
static ssize_t give(char *text, char **out)
{
    *out = text;
    return text != NULL ? (ssize_t)strlen(text) : -ENOMEM;
}

/* How many source files a file is made of. */
static unsigned shard_count(const struct unshard_place *place)
{
    uint32_t view = unshard_node(place->layout, place->node)->view;
    int32_t number = unshard_view_component(place->layout, view);
    if (number < 0)
        return 1;
    struct unshard_component component = unshard_component(place->layout, (uint32_t)number);
    return component.view == view ? component.shard_count : 1;
}

static ssize_t give_shard_count(const struct filesystem *filesystem, const struct inode *inode,
                                char **out)
{
    char digits[16];
    struct inode_sight sight;
    if (inode_table_sight(filesystem->inodes, inode, &sight))
        return -ENOMEM;
    snprintf(digits, sizeof digits, "%u", shard_count(&sight.place));
    inode_sight_release(&sight);
    return give(strdup(digits), out);
}

ssize_t xattr_value(const struct filesystem *filesystem, const struct inode *inode,
                    const char *name, char **out)
{
    size_t i = find(name);
    if (i == ATTRIBUTE_COUNT)
        return -ENODATA;
    if (!attributes[i].render)
        return give_shard_count(filesystem, inode, out);
    uint32_t view = inode_table_view(filesystem->inodes, inode);
    struct unshard_status *status = unshard_status_take(filesystem->engine, view);
    char *text = status != NULL ? attributes[i].render(status) : NULL;
    unshard_status_free(status);
    return give(text, out);
}

const char *xattr_names(size_t *length)
{
    *length = sizeof names;
    return names;
}
