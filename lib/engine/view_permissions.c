/* SPDX-License-Identifier: MIT
 *
 * Who may open a view is who may read all files that it shows bytes of, now. The nodes say so of
 * the moment when the mount was made; when owner, group or mode of a file are others, the watcher
 * has the views of such files told anew, and the kernel asks for what it knew of them.
 */
#include "engine/engine_internal.h"

#include "formats/gather.h"

#include <sys/stat.h>

/* What all files of a view give, as discovery saw them and as they are. */
struct combined {
    struct permissions was, now;
    size_t count;
};

static void add_file(const struct unshard_engine *engine, struct combined *combined,
                     uint32_t number)
{
    const struct source_file *file = &engine->checkpoint->files[number];
    struct permissions was = {file->uid, file->gid, file->mode};
    struct permissions now = source_permissions(engine->source, number);
    if (file->inode == 0) /* it has never been there */
        return;
    bool first = combined->count++ == 0;
    combined->was = first ? was : permissions_of_both(&combined->was, &was);
    combined->now = first ? now : permissions_of_both(&combined->now, &now);
}

static void add_shown(const struct unshard_engine *engine, struct combined *combined,
                      uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    if (gathered == NULL)
        add_file(engine, combined, number);
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        add_file(engine, combined, gathered->sources[i].file);
}

/* Whose merged file, stand-in or index the view is. */
static const struct component *component_of(const struct unshard_engine *engine, uint32_t view)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        if (checkpoint->components[i].view == view || checkpoint->components[i].index_view == view)
            return &checkpoint->components[i];
    return NULL;
}

static void combine_view(struct unshard_engine *engine, uint32_t view, struct combined *combined)
{
    const struct extent_map *map = view_map(engine, view);
    uint32_t last = UINT32_MAX;
    for (size_t i = 0; i < map->count; i++)
        if (map->extents[i].source != EXTENT_LITERAL && map->extents[i].source != last)
            add_shown(engine, combined, last = map->extents[i].source);
    const struct component *component = combined->count > 0 ? NULL : component_of(engine, view);
    for (uint32_t i = 0; component != NULL && i < component->file_count; i++)
        add_file(engine, combined, component->files[i]);
}

static struct permissions of_node(const struct unshard_engine *engine, uint32_t view)
{
    const struct unshard_node *node =
        &engine->checkpoint->nodes[engine->checkpoint->views[view].node];
    return (struct permissions){node->uid, node->gid, node->mode & 0777};
}

struct permissions view_permissions(const struct unshard_engine *engine, uint32_t view)
{
    const struct view_state *state = &engine->views[view];
    return state->others_may ? state->permissions : of_node(engine, view);
}

static void follow(struct unshard_engine *engine, uint32_t view)
{
    struct combined combined = {.count = 0};
    combine_view(engine, view, &combined);
    bool others = combined.count > 0 && !permissions_same(&combined.was, &combined.now);
    struct permissions node = of_node(engine, view);
    combined.was.mode &= 0555;
    combined.now.mode &= 0555;
    if (!permissions_same(&combined.was, &node)) /* it has some of its own: an index on disk */
        combined.now = permissions_of_both(&combined.now, &node);
    pthread_mutex_lock(&engine->lock);
    struct view_state *state = &engine->views[view];
    struct permissions before = view_permissions(engine, view);
    state->others_may = others;
    state->permissions = combined.now;
    struct permissions after = view_permissions(engine, view);
    bool tell = !permissions_same(&before, &after) && engine->publisher.changed != NULL &&
                !engine->no_stores;
    engine->stores_running += tell; /* drained as stores are */
    pthread_mutex_unlock(&engine->lock);
    if (!tell)
        return;
    engine->publisher.changed(engine->publisher.context, view);
    pthread_mutex_lock(&engine->lock);
    if (--engine->stores_running == 0)
        pthread_cond_broadcast(&engine->stores_done);
    pthread_mutex_unlock(&engine->lock);
}

void view_permissions_follow(struct unshard_engine *engine)
{
    for (uint32_t view = 0; view < engine->checkpoint->view_count; view++)
        follow(engine, view);
}
