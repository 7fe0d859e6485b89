/* SPDX-License-Identifier: MIT
 *
 * What nobody needs any more leaves: first the views of a group, as soon as nobody has them open
 * and no store into them runs; then each file that nothing else has, as soon as nothing of it is
 * read, stored or hashed. Its number stays taken until its handles are closed and nobody watches
 * it, which is done without a lock.
 *
 * Strings of what has left lie in layouts, and statuses point to them: while one is being looked
 * at, nothing leaves.
 */
#include "engine/admit.h"
#include "engine/engine_internal.h"
#include "engine/search.h"
#include "formats/gather.h"

#include <stdlib.h>

/* Layouts to release without the lock. */
struct layouts {
    struct unshard_checkpoint **all;
    size_t count, capacity;
};

struct leaving {
    struct unshard_engine *engine;
    struct layouts layouts;
    struct number_list files; /* that are gone, but for their numbers */
};

static void keep_layout(void *context, struct unshard_checkpoint *layout)
{
    struct layouts *layouts = &((struct leaving *)context)->layouts;
    if (layouts->count == layouts->capacity) {
        size_t capacity = 2 * layouts->capacity + 16;
        struct unshard_checkpoint **grown =
            reallocarray(layouts->all, capacity, sizeof(struct unshard_checkpoint *));
        if (grown == NULL)
            return; /* it stays for good */
        layouts->all = grown;
        layouts->capacity = capacity;
    }
    layouts->all[layouts->count++] = layout;
}

static void note_unneeded(void *context, uint32_t file)
{
    number_set_add(&((struct leaving *)context)->engine->agenda.leaving, file);
}

static struct registry_leaving hears_of(struct leaving *leaving)
{
    return (struct registry_leaving){leaving, keep_layout, note_unneeded};
}

/* ---- views; the caller holds both locks --------------------------------------------------------
 */

static bool is_quiet(const struct unshard_engine *engine, const struct number_list *views)
{
    bool quiet = true;
    for (uint32_t i = 0; i < views->count && quiet; i++) {
        const struct view_state *view = &engine->views[views->numbers[i]];
        quiet = !view->known && view->opened == 0 && view->storing == 0;
    }
    return quiet;
}

static void view_leave(struct unshard_engine *engine, uint32_t view)
{
    const struct view *shown = &engine->checkpoint->views[view];
    plan_remove(engine, view);
    schedule_closed(engine, view);
    for (unsigned self = 0; self < MAX_READERS; self++)
        if (engine->threads.run_of[self].view == view &&
            !run_is_over(&engine->threads.run_of[self]))
            run_give_up(engine, self);
    for (uint32_t file = view_next_file(shown, 0); file != EXTENT_LITERAL;
         file = view_next_file(shown, file + 1))
        number_list_remove(&engine->files[file].views, view);
    number_set_remove(&engine->agenda.resting, view);
    number_set_remove(&engine->agenda.unneeded, view);
    number_set_remove(&engine->agenda.views_to_follow, view);
    number_set_remove(&engine->agenda.giving_back, view);
    view_discard(engine, view);
}

/* False: it is still needed, or something is under way. */
static void group_leave(struct leaving *leaving, uint32_t view)
{
    struct unshard_engine *engine = leaving->engine;
    struct registry_leaving hears = hears_of(leaving);
    struct number_list views = {0};
    if (registry_is_needed(&engine->registry, view)) {
        number_set_remove(&engine->agenda.unneeded, view);
        return;
    }
    if (registry_group(&engine->registry, view, &views) == 0 && is_quiet(engine, &views)) {
        for (uint32_t i = 0; i < views.count; i++)
            view_leave(engine, views.numbers[i]);
        registry_release_group(&engine->registry, &views, &hears);
    }
    number_list_free(&views);
}

/* ---- files; the caller holds both locks --------------------------------------------------------
 */

static bool file_is_quiet(const struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    bool quiet = file->pass == NULL && file->stores == 0 && file->orphans == 0 &&
                 file->stalled == 0 && file->held.count == 0 && file->dependents.count == 0 &&
                 !gate_pages_are_due(&file->gate) && file->gate.pages != GATE_PAGES_GOING &&
                 !number_set_has(&engine->trust.to_keep, number);
    for (uint32_t i = chunk_next_touched(file, 0); i < file->chunk_count && quiet;
         i = chunk_next_touched(file, i + 1))
        quiet = file->chunks[i].fetch == NULL;
    return quiet;
}

static void forget_chunks(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    struct kept_chunk kept;
    for (uint32_t i = chunk_next_touched(file, 0); i < file->chunk_count;
         i = chunk_next_touched(file, i + 1))
        chunk_forget(engine, number, i, WANTED_BY_READERS);
    while (kept_take_of(&engine->buffers.kept, number, &kept))
        buffers_give(&engine->buffers, kept.buffer);
    staging_forget(&engine->staging, number);
}

static void file_leave(struct unshard_engine *engine, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    struct number_set *sets[] = {&engine->agenda.suspects,    &engine->agenda.holding,
                                 &engine->agenda.putting_off, &engine->agenda.arrived,
                                 &engine->agenda.leaving,     &engine->agenda.permissions_changed};
    forget_chunks(engine, number);
    runs_end_file(&engine->runs, number);
    passes_remove(engine, number);
    same_file_remove(engine, number);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        number_set_remove(sets[i], number);
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        number_list_remove(&engine->files[gathered->sources[i].file].dependents, number);
    file_discard(engine, number);
    registry_hide_file(&engine->registry, number);
}

static void files_leave(struct leaving *leaving)
{
    struct unshard_engine *engine = leaving->engine;
    struct number_set *agenda = &engine->agenda.leaving;
    for (uint32_t i = agenda->count; i-- > 0;) {
        uint32_t number = agenda->numbers[i];
        if (registry_file_is_needed(&engine->registry, number)) {
            number_set_remove(agenda, number);
        } else if (file_is_quiet(engine, number) && number_list_reserve(&leaving->files, 1) == 0) {
            file_leave(engine, number);
            number_list_add(&leaving->files, number);
        }
    }
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static void lock_both(struct unshard_engine *engine)
{
    pthread_mutex_lock(&engine->attaching);
    pthread_mutex_lock(&engine->lock);
}

static void unlock_both(struct unshard_engine *engine)
{
    pthread_mutex_unlock(&engine->lock);
    pthread_mutex_unlock(&engine->attaching);
}

static bool something_leaves(struct unshard_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool leaves = engine->agenda.unneeded.count > 0 || engine->agenda.leaving.count > 0;
    pthread_mutex_unlock(&engine->lock);
    return leaves && atomic_load(&engine->observers) == 0;
}

static void take_away(struct leaving *leaving)
{
    struct unshard_engine *engine = leaving->engine;
    lock_both(engine);
    if (atomic_load(&engine->observers) == 0) {
        struct number_set *unneeded = &engine->agenda.unneeded;
        for (uint32_t i = unneeded->count; i-- > 0;)
            if (i < unneeded->count) /* a group may have been there twice */
                group_leave(leaving, unneeded->numbers[i]);
        files_leave(leaving);
    }
    unlock_both(engine);
}

/* The numbers of files are free now. */
static void give_numbers_back(struct leaving *leaving)
{
    struct unshard_engine *engine = leaving->engine;
    struct registry_leaving hears = hears_of(leaving);
    lock_both(engine);
    for (uint32_t i = 0; i < leaving->files.count; i++)
        registry_release_file(&engine->registry, leaving->files.numbers[i], &hears);
    unlock_both(engine);
}

void engine_leave(struct unshard_engine *engine, void (*gone)(void *context, uint32_t file),
                  void *context)
{
    struct leaving leaving = {.engine = engine};
    if (!something_leaves(engine))
        return;
    take_away(&leaving);
    for (uint32_t i = 0; i < leaving.files.count; i++) {
        gone(context, leaving.files.numbers[i]);
        source_remove(engine->source, leaving.files.numbers[i]);
    }
    give_numbers_back(&leaving);
    for (size_t i = 0; i < leaving.layouts.count; i++)
        unshard_layout_release(leaving.layouts.all[i]);
    free(leaving.layouts.all);
    number_list_free(&leaving.files);
}

void unshard_engine_detach(struct unshard_engine *engine, uint32_t view)
{
    pthread_mutex_lock(&engine->lock);
    if (registry_need_less(&engine->registry, view))
        number_set_add(&engine->agenda.unneeded, view);
    pthread_mutex_unlock(&engine->lock);
}
