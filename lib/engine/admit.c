/* SPDX-License-Identifier: MIT
 *
 * What the engine is given: a whole checkpoint at its start, and views of layouts while it runs.
 *
 * The registry gives new files and views numbers, of which nobody else knows; what is kept of each
 * is made without a lock that others wait for (`attaching` keeps attachments apart: of what two of
 * them bring, the same may be the same). Then, under engine->lock, all of it is there at once: the
 * counts include it, files that were there before learn of the views that show them too, and the
 * plan goes on. Nothing has to be undone after that.
 *
 * What somebody has attached he lets go of. What nobody needs leaves (leave.c).
 */
#include "engine/admit.h"

#include "base/error.h"
#include "engine/engine_internal.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- in the making: nobody else knows of the new numbers ---------------------------------------
 */

static bool is_new(const struct unshard_engine *engine, uint32_t file)
{
    return !engine->files[file].used;
}

/* The end of the last byte that any view shows of each file: a file that is shorter than its header
 * says is asked for all the same, and answers with an error. */
static void find_file_sizes(struct unshard_engine *engine, const struct adoption *new)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    for (uint32_t i = 0; i < new->files.count; i++) {
        const struct source_file *file = &checkpoint->files[new->files.numbers[i]];
        engine->files[new->files.numbers[i]].size =
            source_file_is_too_large(file) ? 0 /* no view shows it */ : file->size;
    }
    for (uint32_t v = 0; v < new->views.count; v++) {
        const struct extent_map *map = &checkpoint->views[new->views.numbers[v]].map;
        for (size_t e = 0; e < map->count; e++) {
            const struct extent *extent = &map->extents[e];
            uint64_t next = e + 1 < map->count ? extent[1].view_offset : map->size;
            uint64_t end = extent->source_offset + (next - extent->view_offset);
            if (extent->source != EXTENT_LITERAL && is_new(engine, extent->source) &&
                end > engine->files[extent->source].size)
                engine->files[extent->source].size = end;
        }
    }
}

void file_discard(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    pass_discard(engine, number);
    file_chunks_free(file);
    gate_free(&file->gate);
    free(file->trouble);
    epoch_release(file->epoch);
    number_list_free(&file->views);
    number_list_free(&file->dependents);
    *file = (struct file_state){0};
}

void view_discard(struct unshard_engine *engine, uint32_t number)
{
    plain_maps_free(&engine->views[number]);
    memset(&engine->views[number], 0, sizeof engine->views[number]);
}

static int make_files(struct unshard_engine *engine, const struct adoption *new)
{
    int result = 0;
    find_file_sizes(engine, new);
    for (uint32_t i = 0; i < new->files.count &&result == 0; i++) {
        struct file_state *file = &engine->files[new->files.numbers[i]];
        result = file_chunks_make(engine, file, file->size);
    }
    if (result == 0)
        result = unread_mark(engine, new);
    for (uint32_t i = 0; i < new->files.count &&result == 0; i++) {
        source_add(engine->source, new->files.numbers[i]);
        result = check_make(engine, new->files.numbers[i]);
    }
    return result;
}

/* ---- now they are there: the caller holds engine->lock -----------------------------------------
 */

/* Room in the lists of all files that are concerned. */
static int reserve_links(struct unshard_engine *engine, const struct adoption *new)
{
    int result = 0;
    for (uint32_t v = 0; v < new->views.count; v++) {
        const struct view *view = &engine->checkpoint->views[new->views.numbers[v]];
        for (uint32_t file = view_next_file(view, 0); file != EXTENT_LITERAL && result == 0;
             file = view_next_file(view, file + 1))
            result = number_list_reserve(&engine->files[file].views, new->views.count);
    }
    for (uint32_t i = 0; i < new->files.count; i++) {
        const struct gathered *gathered = engine->checkpoint->files[new->files.numbers[i]].gathered;
        for (uint32_t k = 0; gathered != NULL && k < gathered->source_count && result == 0; k++)
            result = number_list_reserve(&engine->files[gathered->sources[k].file].dependents,
                                         new->files.count);
    }
    return result;
}

static void link_all(struct unshard_engine *engine, const struct adoption *new)
{
    for (uint32_t v = 0; v < new->views.count; v++) {
        uint32_t number = new->views.numbers[v];
        const struct view *view = &engine->checkpoint->views[number];
        for (uint32_t file = view_next_file(view, 0); file != EXTENT_LITERAL;
             file = view_next_file(view, file + 1))
            number_list_add(&engine->files[file].views, number);
        atomic_store_explicit(&engine->views[number].map, &view->map, memory_order_release);
    }
    for (uint32_t i = 0; i < new->files.count; i++) {
        uint32_t number = new->files.numbers[i];
        const struct gathered *gathered = engine->checkpoint->files[number].gathered;
        for (uint32_t k = 0; gathered != NULL && k < gathered->source_count; k++)
            number_list_add(&engine->files[gathered->sources[k].file].dependents, number);
    }
}

static int compare_load_order(const void *a, const void *b, void *context)
{
    const struct unshard_checkpoint *checkpoint = context;
    const struct view *x = &checkpoint->views[*(const uint32_t *)a];
    const struct view *y = &checkpoint->views[*(const uint32_t *)b];
    unsigned order_x = checkpoint->components[x->component].load_order;
    unsigned order_y = checkpoint->components[y->component].load_order;
    if (order_x != order_y)
        return order_x < order_y ? -1 : 1;
    return strcmp(x->path, y->path);
}

/* At the end of the plan, in the order in which a pipeline loads them. */
static void plan_all(struct unshard_engine *engine, const struct adoption *new)
{
    uint32_t first = engine->plan.count;
    for (uint32_t v = 0; v < new->views.count; v++)
        if (plan_takes(engine, new->views.numbers[v]))
            plan_add(engine, new->views.numbers[v]);
    qsort_r(engine->plan.views + first, engine->plan.count - first, sizeof *engine->plan.views,
            compare_load_order, (void *)(uintptr_t)engine->checkpoint);
}

/* Files of views in the order of the plan, then the others that have a digest of the whole. */
static void list_passes(struct unshard_engine *engine, const struct adoption *new,
                        uint32_t first_planned)
{
    for (uint32_t p = first_planned; p < engine->plan.count; p++)
        passes_plan_view(engine, engine->plan.views[p]);
    for (uint32_t i = 0; i < new->files.count; i++)
        if (engine->files[new->files.numbers[i]].views.count > 0)
            passes_add(engine, new->files.numbers[i], false);
}

/* Content that cannot be right is blocked before anybody reads it. */
static void set_gates(struct unshard_engine *engine, const struct adoption *new)
{
    struct unshard_error error;
    for (uint32_t i = 0; i < new->files.count; i++) {
        uint32_t number = new->files.numbers[i];
        gate_init(&engine->files[number].gate, file_must_wait(engine, number));
    }
    for (uint32_t i = 0; i < new->files.count; i++) {
        uint32_t number = new->files.numbers[i];
        const struct source_file *file = &engine->checkpoint->files[number];
        if (check_possible(engine, number, file->size, &error) != 0 ||
            outliving_is_bad(engine, number, &error))
            file_block_at_start(engine, number, &error);
    }
    for (uint32_t i = 0; i < new->files.count; i++)
        gathered_block_at_start(engine, new->files.numbers[i]);
}

static void publish(struct unshard_engine *engine, struct adoption *new)
{
    uint32_t first_planned = engine->plan.count;
    link_all(engine, new);
    for (uint32_t i = 0; i < new->files.count; i++)
        engine->files[new->files.numbers[i]].used = true;
    set_gates(engine, new);
    for (uint32_t i = 0; i < new->files.count; i++)
        same_file_add(engine, new->files.numbers[i]);
    for (uint32_t i = 0; i < new->files.count; i++)
        outliving_restore(engine, new->files.numbers[i]);
    if (engine->options.prefetch != UNSHARD_PREFETCH_OPEN)
        plan_all(engine, new);
    list_passes(engine, new, first_planned);
    for (uint32_t i = 0; i < new->files.count; i++)
        number_set_add(&engine->agenda.arrived, new->files.numbers[i]);
    for (uint32_t v = 0; v < new->views.count; v++)
        schedule_offer_view(engine, new->views.numbers[v]);
    registry_commit(&engine->registry, new);
}

/* ---- both --------------------------------------------------------------------------------------
 */

static void discard(struct unshard_engine *engine, struct adoption *new)
{
    for (uint32_t i = 0; i < new->files.count; i++)
        file_discard(engine, new->files.numbers[i]);
    registry_cancel(&engine->registry, new);
}

static int admit(struct unshard_engine *engine, struct adoption *new)
{
    int result = make_files(engine, new);
    uint64_t available = available_memory_lately();
    pthread_mutex_lock(&engine->lock);
    if (result == 0)
        result = reserve_links(engine, new);
    if (result == 0)
        publish(engine, new);
    if (result == 0)
        window_update(engine, available);
    pthread_mutex_unlock(&engine->lock);
    if (result != 0)
        discard(engine, new);
    return result;
}

int engine_admit_all(struct unshard_engine *engine, const struct unshard_checkpoint *checkpoint)
{
    struct adoption new;
    int result = registry_adopt_all(&engine->registry, checkpoint, &new);
    uint32_t count = new.views.count;
    if (result != 0)
        registry_cancel(&engine->registry, &new);
    else
        result = admit(engine, &new);
    for (uint32_t v = 0; v < count && result == 0; v++)
        registry_need(&engine->registry, v); /* for good */
    return result;
}

/* What was there already can be opened by these names, too. */
static void add_names(struct unshard_engine *engine, const struct unshard_checkpoint *layout,
                      const struct adoption *new)
{
    for (uint32_t i = 0; i < new->renamed.count; i++)
        if (layout->files[new->names.numbers[i]].gathered == NULL)
            source_add_name(engine->source, new->renamed.numbers[i],
                            layout->files[new->names.numbers[i]].path);
}

static int attach(struct unshard_engine *engine, struct unshard_checkpoint *layout, uint32_t local,
                  uint32_t *view)
{
    struct adoption new;
    int result = registry_adopt(&engine->registry, layout, local, &new);
    if (result != 0)
        registry_cancel(&engine->registry, &new);
    else if (new.views.count > 0 || new.files.count > 0)
        result = admit(engine, &new);
    if (result == 0)
        add_names(engine, layout, &new);
    adoption_forget_names(&new);
    if (result != 0)
        return result;
    *view = new.view;
    pthread_mutex_lock(&engine->lock);
    registry_need(&engine->registry, new.view);
    pthread_mutex_unlock(&engine->lock);
    return 0;
}

int unshard_engine_attach(struct unshard_engine *engine, struct unshard_checkpoint *layout,
                          uint32_t local, uint32_t *view, struct unshard_error *error)
{
    pthread_mutex_lock(&engine->attaching);
    int result = attach(engine, layout, local, view);
    pthread_mutex_unlock(&engine->attaching);
    if (result == 0)
        return 0;
    if (result == -ENOMEM)
        return error_no_memory(error);
    return error_set(error, "too-many-files", -result,
                     "%s: more files are in use than this mount can have at a time",
                     layout->views[local].path);
}

void engine_discard_all(struct unshard_engine *engine)
{
    for (uint32_t i = 0; engine->files != NULL && i < engine->registry.files.end; i++)
        file_discard(engine, i);
    for (uint32_t v = 0; engine->views != NULL && v < engine->registry.views.end; v++)
        view_discard(engine, v);
}
