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

/* component: whose merged file, stand-in or index the view is, when it may show no file itself. */
static void combine_view(struct unshard_engine *engine, uint32_t view,
                         const struct component *component, struct combined *combined)
{
    const struct extent_map *map = view_map(engine, view);
    uint32_t last = UINT32_MAX;
    for (size_t i = 0; i < map->count; i++)
        if (map->extents[i].source != EXTENT_LITERAL && map->extents[i].source != last)
            add_shown(engine, combined, last = map->extents[i].source);
    if (combined->count > 0 || component == NULL)
        return;
    for (uint32_t i = 0; i < component->file_count; i++)
        add_file(engine, combined, component->files[i]);
}

static struct permissions of_node(const struct unshard_engine *engine, uint32_t view)
{
    const struct unshard_node *node = engine->checkpoint->views[view].shown_as;
    return (struct permissions){node->uid, node->gid, node->mode & 0777};
}

struct permissions view_permissions(const struct unshard_engine *engine, uint32_t view)
{
    const struct view_state *state = &engine->views[view];
    return state->others_may ? state->permissions : of_node(engine, view);
}

static void follow(struct unshard_engine *engine, uint32_t view, const struct component *component)
{
    struct combined combined = {.count = 0};
    combine_view(engine, view, component, &combined);
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
                !engine->pages.no_stores;
    engine->pages.stores_running += tell; /* drained as stores are */
    pthread_mutex_unlock(&engine->lock);
    if (!tell)
        return;
    engine->publisher.changed(engine->publisher.context, view);
    pthread_mutex_lock(&engine->lock);
    if (--engine->pages.stores_running == 0)
        pthread_cond_broadcast(&engine->pages.stores_done);
    pthread_mutex_unlock(&engine->lock);
}

void view_permissions_note(struct unshard_engine *engine, uint32_t file)
{
    number_set_add(&engine->agenda.permissions_changed, file);
}

/* Views of the file, and those of gathered files that depend on it. */
static void find_views(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->views.count; i++)
        number_set_add(&engine->agenda.views_to_follow, file->views.numbers[i]);
    for (size_t i = 0; i < file->dependents.count; i++)
        find_views(engine, file->dependents.numbers[i]);
}

static bool has_changed(const struct unshard_engine *engine, const struct component *component)
{
    for (uint32_t i = 0; i < component->file_count; i++)
        if (number_set_has(&engine->agenda.permissions_changed, component->files[i]))
            return true;
    return false;
}

static void follow_component(struct unshard_engine *engine, const struct component *component)
{
    uint32_t views[] = {component->view, component->index_view};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        if (views[i] == UNSHARD_NO_VIEW)
            continue;
        follow(engine, views[i], component);
        number_set_remove(&engine->agenda.views_to_follow, views[i]);
    }
}

/* Whom the files concern: views, and *components. Memory that is short is found again with the next
 * change. */
static void find_concerned(struct unshard_engine *engine, struct number_list *components)
{
    const struct number_set *files = &engine->agenda.permissions_changed;
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    pthread_mutex_lock(&engine->attaching);
    for (uint32_t i = 0; i < files->count; i++)
        find_views(engine, files->numbers[i]);
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        if (has_changed(engine, &checkpoint->components[i]) &&
            number_list_reserve(components, 1) == 0)
            number_list_add(components, i);
    pthread_mutex_unlock(&engine->attaching);
}

void view_permissions_follow(struct unshard_engine *engine)
{
    struct number_set *files = &engine->agenda.permissions_changed,
                      *views = &engine->agenda.views_to_follow;
    struct number_list components = {0};
    if (files->count == 0)
        return;
    find_concerned(engine, &components);
    for (uint32_t i = 0; i < components.count; i++)
        follow_component(engine, &engine->checkpoint->components[components.numbers[i]]);
    number_list_free(&components);
    while (views->count > 0) {
        follow(engine, views->numbers[views->count - 1], NULL);
        number_set_remove(views, views->numbers[views->count - 1]);
    }
    while (files->count > 0)
        number_set_remove(files, files->numbers[files->count - 1]);
}
