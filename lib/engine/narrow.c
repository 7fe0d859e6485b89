/* SPDX-License-Identifier: MIT
 *
 * A status for somebody who may list only some directories. What he does not see is left out of
 * what was taken, before anything is summed up: so there is nothing to be taken out of sums again.
 * He is asked about when no lock is held.
 *
 * A component is seen when all of its files are. Of a file that has several names the status knows
 * one: who may not list where that lies sees nothing of it. */
#include "engine/engine_internal.h"
#include "engine/taking.h"
#include "tree/trace.h"

#include <stdlib.h>
#include <string.h>

/* ---- under the lock ----------------------------------------------------------------------------
 */

/* The source itself, then the layouts that are told of. */
static void take_shares(struct taking *taking)
{
    const struct told *told = &taking->engine->told;
    struct told_share *shares =
        arena_alloc_array(taking->arena, (size_t)told->count + 1, sizeof *shares);
    taking->failed |= shares == NULL;
    if (shares == NULL)
        return;
    shares[0].directory = "";
    shares[0].counts[TOLD_PROBLEMS] = taking->checkpoint->problem_count;
    shares[0].counts[TOLD_NOTES] = taking->checkpoint->note_count;
    for (uint32_t i = 0; i < told->count; i++) {
        const struct told_layout *from = &told->layouts[i];
        const struct trace *trace = from->layout->trace;
        if (trace != NULL)
            shares[i + 1].directory =
                arena_copy_string(taking->arena, trace->path, strlen(trace->path));
        shares[i + 1].counts[TOLD_PROBLEMS] = from->layout->problem_count;
        shares[i + 1].counts[TOLD_NOTES] = from->layout->note_count;
        shares[i + 1].counts[TOLD_COMPONENTS] = from->components.count;
        shares[i + 1].counts[TOLD_FILES] = from->files.count;
    }
    taking->narrowing.shares = shares;
    taking->narrowing.share_count = told->count + 1;
}

/* More will come of the plan for it, as plan.c has it. */
static bool is_planned(const struct unshard_engine *engine, uint32_t view)
{
    const struct view_state *state = &engine->views[view];
    return state->planned && state->known && !state->evicted &&
           (state->plan_waits || state->planned_to < view_map(engine, view)->size);
}

static void take_views(struct taking *taking)
{
    const struct unshard_engine *engine = taking->engine;
    struct narrowing *out = &taking->narrowing;
    uint32_t room = 0, count = taking->checkpoint->view_count;
    for (uint32_t v = 0; v < count; v++)
        room += engine->views[v].opened > 0 || is_planned(engine, v);
    out->views = arena_alloc_array(taking->arena, room, sizeof *out->views);
    taking->failed |= out->views == NULL;
    for (uint32_t v = 0; out->view_count < room && out->views != NULL && v < count; v++)
        if (engine->views[v].opened > 0 || is_planned(engine, v))
            out->views[out->view_count++] =
                (struct taken_view){v, engine->views[v].opened, is_planned(engine, v)};
}

static void mark_busy(struct taking *taking, const struct fetch_list *list)
{
    for (const struct fetch *fetch = list->first; fetch != NULL; fetch = fetch->next)
        taking->files[fetch->file].busy = true;
}

void narrow_take(struct taking *taking)
{
    uint32_t components = taking->checkpoint->component_count;
    if (taking->narrowing.audience == NULL || taking->failed)
        return;
    take_shares(taking);
    take_views(taking);
    mark_busy(taking, &taking->engine->queues.reading);
    mark_busy(taking, &taking->engine->queues.stores);
    for (uint32_t i = 0; i < taking->count; i++)
        if (taking->engine->files[taking->numbers[i]].stores > 0)
            taking->files[taking->numbers[i]].busy = true;
    taking->narrowing.hidden =
        arena_alloc_array(taking->arena, components, sizeof *taking->narrowing.hidden);
    taking->failed |= taking->narrowing.hidden == NULL;
}

/* ---- what he sees ------------------------------------------------------------------------------
 */

/* The directory is the first `length` bytes of the path. Many files in a row lie in one. */
static bool may_list(struct narrowing *narrowing, const char *path, size_t length)
{
    const struct unshard_audience *audience = narrowing->audience;
    if (length >= sizeof narrowing->asked)
        return false;
    if (narrowing->asked_any && strncmp(narrowing->asked, path, length) == 0 &&
        narrowing->asked[length] == '\0')
        return narrowing->answer;
    memcpy(narrowing->asked, path, length);
    narrowing->asked[length] = '\0';
    narrowing->asked_any = true;
    narrowing->answer = audience->may_list(audience->context, narrowing->asked);
    return narrowing->answer;
}

static bool sees_path(struct taking *taking, const char *path)
{
    const char *slash = strrchr(path, '/');
    return may_list(&taking->narrowing, path, slash != NULL ? (size_t)(slash - path) : 0);
}

static bool sees_component(struct taking *taking, const struct unshard_component_status *component)
{
    bool sees = component->view == NULL || sees_path(taking, component->view);
    for (uint32_t i = 0; i < component->shard_count && sees; i++)
        sees = sees_path(taking, component->shards[i]->path);
    return sees;
}

static bool is_of_hidden(const struct taking *taking, uint32_t component)
{
    return component != NO_COMPONENT && taking->narrowing.hidden[component];
}

bool narrow_sees_file(struct taking *taking, uint32_t number)
{
    const struct source_file *file = &taking->checkpoint->files[number];
    return taking->narrowing.audience == NULL ||
           (!is_of_hidden(taking, file->component) && sees_path(taking, file->path));
}

/* ---- what is left ------------------------------------------------------------------------------
 */

/* Of what is told, that of directories that he may list: moved to the front, and how much. */
static uint32_t keep_told(const struct narrowing *narrowing, enum told_kind kind, void *items,
                          size_t size)
{
    uint32_t kept = 0, at = 0;
    for (uint32_t i = 0; i < narrowing->share_count; i++) {
        uint32_t count = narrowing->shares[i].counts[kind];
        if (narrowing->shares[i].seen && count > 0) {
            memmove((char *)items + kept * size, (char *)items + at * size, count * size);
            kept += count;
        }
        at += count;
    }
    return kept;
}

void narrow_components(struct taking *taking, struct number_list *components)
{
    struct narrowing *narrowing = &taking->narrowing;
    struct unshard_component_status *all = taking->components, *told = all + components->count;
    uint32_t kept = 0, told_kept = 0;
    if (narrowing->audience == NULL)
        return;
    for (uint32_t i = 0; i < narrowing->share_count; i++) {
        const char *directory = narrowing->shares[i].directory;
        narrowing->shares[i].seen =
            directory != NULL && may_list(narrowing, directory, strlen(directory));
    }
    for (uint32_t i = 0; i < components->count; i++) {
        if (sees_component(taking, &all[i])) {
            components->numbers[kept] = components->numbers[i];
            all[kept++] = all[i];
        } else {
            narrowing->hidden[components->numbers[i]] = true;
        }
    }
    components->count = kept;
    uint32_t count = keep_told(narrowing, TOLD_COMPONENTS, told, sizeof *told);
    for (uint32_t i = 0; i < count; i++)
        if (sees_component(taking, &told[i]))
            all[kept + told_kept++] = told[i];
    taking->told_component_count = told_kept;
}

static void narrow_told(struct taking *taking)
{
    const struct narrowing *narrowing = &taking->narrowing;
    struct unshard_status *out = taking->status;
    uint32_t gone = out->problem_count - taking->old_problems, kept = 0;
    taking->old_problems =
        keep_told(narrowing, TOLD_PROBLEMS, taking->problems + gone, sizeof *taking->problems);
    out->problem_count = gone + taking->old_problems;
    out->note_count = keep_told(narrowing, TOLD_NOTES, taking->notes, sizeof *taking->notes);
    uint32_t count =
        keep_told(narrowing, TOLD_FILES, taking->told_files, sizeof *taking->told_files);
    for (uint32_t i = 0; i < count; i++)
        if (sees_path(taking, taking->told_files[i].path))
            taking->told_files[kept++] = taking->told_files[i];
    taking->told_file_count = kept;
}

static void narrow_stuck(struct taking *taking)
{
    struct unshard_status *out = taking->status;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < out->stuck_count && kept < MOST_STUCK; i++)
        if (narrow_sees_file(taking, taking->stuck_files[i]))
            taking->stuck[kept++] = taking->stuck[i];
    out->stuck_count = kept;
}

/* He knows of a directory who may list the one that it is in. How many there are, and for how long,
 * tells no names. */
static void narrow_looks(struct taking *taking)
{
    struct unshard_looks *out = &taking->status->looks;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < out->stuck_count; i++)
        if (sees_path(taking, out->stuck[i].directory))
            out->stuck[kept++] = out->stuck[i];
    out->stuck_count = kept;
}

/* Readers, and whether anything is to be waited for. */
static void narrow_work(struct taking *taking)
{
    struct unshard_status *out = taking->status;
    bool planned = false, busy = false;
    out->readers = 0;
    for (uint32_t i = 0; i < taking->narrowing.view_count; i++) {
        const struct taken_view *taken = &taking->narrowing.views[i];
        const struct view *view = &taking->checkpoint->views[taken->number];
        if (is_of_hidden(taking, view->component) || !sees_path(taking, view->path))
            continue;
        out->readers += taken->opened;
        planned = planned || taken->planned;
    }
    for (uint32_t i = 0; i < taking->count && !busy; i++)
        busy =
            taking->files[taking->numbers[i]].busy && narrow_sees_file(taking, taking->numbers[i]);
    taking->planned = taking->planned && planned;
    taking->busy = busy;
    if (!taking->planned)
        out->paused_reason = NULL;
}

void narrow_rest(struct taking *taking)
{
    if (taking->narrowing.audience == NULL)
        return;
    narrow_told(taking);
    narrow_stuck(taking);
    narrow_looks(taking);
    narrow_work(taking);
}
