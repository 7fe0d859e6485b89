/* SPDX-License-Identifier: MIT
 *
 * The one place where a status is filled in. What changes is copied under the engine's lock; what
 * follows from that (the words for components and for the whole, sums, lists) is worked out without
 * it.
 *
 * Tensors that are put together on reading ("gathered") are no file of the source: what became of
 * them is told of the shards that their bytes come from.
 */
#include "engine/engine_internal.h"
#include "engine/taking.h"
#include "formats/gather.h"
#include "status/status_memory.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Takes the lock, with room for what is taken of each file that there is then. */
static void lock_with_room(struct taking *taking)
{
    pthread_mutex_lock(&taking->engine->lock);
    for (uint32_t needed; (needed = taking->checkpoint->file_count) > taking->file_room;) {
        pthread_mutex_unlock(&taking->engine->lock);
        free(taking->numbers);
        taking->files = arena_alloc_array(taking->arena, needed, sizeof *taking->files);
        taking->numbers = calloc(needed, sizeof *taking->numbers);
        taking->failed = taking->files == NULL || taking->numbers == NULL;
        taking->file_room = taking->failed ? UINT32_MAX : needed;
        pthread_mutex_lock(&taking->engine->lock);
    }
}

/* ---- under the lock ----------------------------------------------------------------------------
 */

static const struct unshard_error *copy_error(struct taking *taking,
                                              const struct unshard_error *error)
{
    struct unshard_error *copy = arena_alloc(taking->arena, sizeof *copy);
    taking->failed |= copy == NULL;
    if (copy != NULL)
        *copy = *error;
    return copy;
}

static const char *copy_string(struct taking *taking, const char *string)
{
    const char *copy = arena_copy_string(taking->arena, string, strlen(string));
    taking->failed |= copy == NULL;
    return copy;
}

static const struct unshard_mismatch *copy_mismatch(struct taking *taking,
                                                    const struct mismatch *mismatch)
{
    struct unshard_mismatch *copy = arena_alloc(taking->arena, sizeof *copy);
    taking->failed |= copy == NULL;
    if (copy != NULL)
        *copy = (struct unshard_mismatch){.algorithm = copy_string(taking, mismatch->algorithm),
                                          .expected = copy_string(taking, mismatch->expected),
                                          .actual = copy_string(taking, mismatch->actual),
                                          .origin = mismatch->origin};
    return copy;
}

static enum unshard_state state_of(const struct file_state *file, bool ill)
{
    enum check_kind check = file->epoch->check->kind;
    bool all_checked = check == CHECK_CHUNKS && file->chunk_count > file->chunks_unshown &&
                       file->chunks_checked + file->chunks_unshown == file->chunk_count;
    if (gate_is_blocked(&file->gate) || (ill && (file->chunks_failed > 0 || file->retrying == 0)))
        return UNSHARD_STATE_FAILED;
    if (epoch_is_verified(file->epoch) || all_checked)
        return UNSHARD_STATE_VERIFIED;
    if (file->chunk_count == file->chunks_seen + file->chunks_unshown && check != CHECK_WHOLE)
        return UNSHARD_STATE_UNVERIFIED;
    return file->chunks_seen > 0 || file->retrying > 0 ? UNSHARD_STATE_READING
                                                       : UNSHARD_STATE_PENDING;
}

/* What is gathered was checked by the digests of the shards that it was taken from. */
static enum unshard_state gathered_state(const struct unshard_engine *engine,
                                         const struct gathered *gathered, enum unshard_state state)
{
    bool checked = state == UNSHARD_STATE_UNVERIFIED;
    for (uint32_t i = 0; i < gathered->source_count && checked; i++)
        checked = engine->files[gathered->sources[i].file].epoch->check->kind == CHECK_CHUNKS;
    return checked ? UNSHARD_STATE_VERIFIED : state;
}

static double seconds_of(uint64_t nanoseconds)
{
    uint64_t milliseconds = (nanoseconds + 500000) / 1000000;
    return (double)milliseconds / 1000;
}

/* What the file is checked by; NULL, NULL: nothing is known of it. */
static void take_digest(const struct file_epoch *epoch, struct unshard_file_status *out)
{
    if (epoch->whole != NULL) {
        out->algorithm = digest_algorithm_name(epoch->whole->digest.algorithm);
        out->origin = epoch->whole->origin;
    } else if (epoch->check->kind == CHECK_CHUNKS) {
        out->algorithm = digest_algorithm_name(epoch->check->chunks.algorithm);
        out->origin = epoch->check->chunks.origin;
    }
}

/* One that is shown as it is may have become longer or shorter. */
static uint64_t size_of(const struct source_file *source, const struct file_state *file)
{
    return source->as_is ? file->size : source->size;
}

static void take_file(struct taking *taking, uint32_t number)
{
    const struct source_file *source = &taking->checkpoint->files[number];
    const struct file_state *file = &taking->engine->files[number];
    const struct unshard_error *error = file_error(taking->engine, number);
    const struct mismatch *mismatch = file_mismatch(file);
    struct taken_file *taken = &taking->files[number];
    if (taken->taken)
        return;
    taken->taken = true;
    taken->shown = file->chunks_unshown < file->chunk_count;
    taking->numbers[taking->count++] = number;
    struct unshard_file_status *out = &taken->status;
    *out = (struct unshard_file_status){
        .path = source->path,
        .component = source->component != NO_COMPONENT
                         ? taking->checkpoint->components[source->component].name
                         : NULL,
        .state = state_of(file, error != NULL),
        .bytes_total = size_of(source, file) - file->unshown_bytes,
        .bytes_read = file->bytes_seen,
        .bytes_published = file->bytes_published,
        .reading_seconds = seconds_of(file->reading_ns),
        .error = error != NULL ? copy_error(taking, error) : NULL,
        .mismatch = mismatch->known ? copy_mismatch(taking, mismatch) : NULL};
    take_digest(file->epoch, out);
    if (source->gathered != NULL)
        out->state = gathered_state(taking->engine, source->gathered, out->state);
}

/* The file, or those that it is gathered from, too. */
static void take_shown_file(struct taking *taking, uint32_t number)
{
    const struct gathered *gathered = taking->checkpoint->files[number].gathered;
    take_file(taking, number);
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        take_file(taking, gathered->sources[i].file);
}

/* All that a view shows, its component, and what is gathered from any of them. */
static void take_files_of_view(struct taking *taking, uint32_t number)
{
    const struct view *view = &taking->checkpoint->views[number];
    uint32_t last = EXTENT_LITERAL;
    for (size_t i = 0; i < view->map.count; i++) {
        uint32_t file = view->map.extents[view->map.by_source[i]].source;
        if (file != EXTENT_LITERAL && file != last)
            take_shown_file(taking, file);
        last = file;
    }
    /* These come first: see list_files. */
    taking->status->file_count = taking->count;
    if (view->component != NO_COMPONENT) {
        const struct component *component = &taking->checkpoint->components[view->component];
        for (uint32_t i = 0; i < component->file_count; i++)
            take_file(taking, component->files[i]);
    }
    for (uint32_t i = 0, count = taking->count; i < count; i++) {
        const struct file_state *file = &taking->engine->files[taking->numbers[i]];
        for (size_t k = 0; k < file->dependents.count; k++)
            take_file(taking, file->dependents.numbers[k]);
    }
}

static void take_all_files(struct taking *taking)
{
    for (uint32_t i = 0; !taking->failed && i < taking->checkpoint->file_count; i++)
        if (taking->engine->files[i].used)
            take_file(taking, i);
    taking->status->file_count = taking->count;
}

static void take_reading(struct taking *taking, uint64_t now)
{
    const struct unshard_engine *engine = taking->engine;
    struct unshard_status *out = taking->status;
    /* Those that an audience does not see make no others go without. */
    uint32_t room = taking->narrowing.audience != NULL ? engine->queues.stalled : MOST_STUCK;
    struct unshard_stuck_read *stuck = arena_alloc_array(taking->arena, room, sizeof *stuck);
    uint32_t *files = arena_alloc_array(taking->arena, room, sizeof *files);
    uint64_t oldest = 0;
    taking->failed |= stuck == NULL || files == NULL;
    for (const struct fetch *fetch = engine->queues.reading.first; fetch != NULL;
         fetch = fetch->next) {
        uint64_t age = now - fetch->since_ns;
        oldest = age > oldest ? age : oldest;
        if (taking->failed || !fetch->stalled || out->stuck_count == room)
            continue;
        files[out->stuck_count] = fetch->file;
        stuck[out->stuck_count++] =
            (struct unshard_stuck_read){.file = taking->checkpoint->files[fetch->file].path,
                                        .offset = (uint64_t)fetch->index * engine->chunk_bytes,
                                        .seconds = seconds_of(age)};
    }
    out->stuck = taking->stuck = stuck;
    taking->stuck_files = files;
    out->oldest_request_seconds = seconds_of(oldest);
    out->in_flight = (unsigned)engine->queues.reading.count;
    out->stalled = engine->queues.stalled;
    uint64_t since = out->in_flight > 0 ? now - engine->traffic.reading_since_ns : 0;
    out->reading_seconds = seconds_of(engine->traffic.reading_ns + since);
}

static void take_figures(struct taking *taking)
{
    const struct unshard_engine *engine = taking->engine;
    struct unshard_status *out = taking->status;
    size_t unused = engine->buffers.free_count + engine->buffers.kept.count;
    out->bytes_read = engine->traffic.bytes_read;
    out->bytes_stored = __atomic_load_n(&engine->pages.bytes_stored, __ATOMIC_RELAXED);
    out->rate_bytes_per_second = engine->traffic.rate;
    out->workers = engine->threads.reader_count;
    out->jobs = jobs_allowed(&engine->jobs);
    out->chunk_bytes = engine->chunk_bytes;
    out->buffer_bytes = engine->buffers.count * (uint64_t)engine->chunk_bytes;
    out->buffer_used_bytes = out->buffer_bytes - unused * (uint64_t)engine->chunk_bytes;
    out->window_limited = engine->window.limited;
    out->window_bytes = engine->window.limited ? engine->window.bytes : 0;
    out->unconsumed_bytes = engine->window.unconsumed_bytes;
    out->reads = engine->traffic.reads;
    out->chunks_evicted = engine->pages.chunks_evicted;
    out->store_errors = engine->pages.store_errors;
    out->bytes_dropped = engine->pages.bytes_dropped;
    out->bytes_staged = engine->staging.bytes;
    out->paused_reason = engine->plan.paused_reason;
    for (uint32_t v = 0; v < taking->checkpoint->view_count; v++)
        out->readers += engine->views[v].opened;
    taking->planned = plan_is_followed(engine) && !engine->plan.done;
    /* A chunk that was read and is not yet stored still has its buffer. */
    taking->busy = out->in_flight > 0 || out->buffer_used_bytes > 0;
    taking->no_stores = engine->pages.no_stores;
}

/* What is told of layouts is copied: they may go before the status does. */
static const char *copy_if(struct taking *taking, const char *string)
{
    return string != NULL ? copy_string(taking, string) : NULL;
}

static const char *const *copy_strings(struct taking *taking, const char *const *strings,
                                       uint32_t count)
{
    const char **copies = arena_alloc_array(taking->arena, count, sizeof *copies);
    taking->failed |= copies == NULL;
    for (uint32_t i = 0; copies != NULL && i < count; i++)
        copies[i] = copy_string(taking, strings[i]);
    return copies;
}

/* The source, what the whole checkpoint has, and the layouts that are told of. */
static void take_problems(struct taking *taking)
{
    const struct unshard_checkpoint *checkpoint = taking->checkpoint;
    const struct told *told = &taking->engine->told;
    uint32_t gone = taking->engine->root.gone, count = checkpoint->problem_count;
    for (uint32_t i = 0; i < told->count; i++)
        count += told->layouts[i].layout->problem_count;
    struct unshard_error *problems =
        arena_alloc_array(taking->arena, gone + count, sizeof *problems);
    taking->failed |= problems == NULL;
    if (problems == NULL)
        return;
    taking->status->problems = taking->problems = problems;
    taking->status->problem_count = gone + count;
    taking->old_problems = count;
    if (gone > 0)
        *problems++ = taking->engine->root.error;
    for (uint32_t i = 0; i < checkpoint->problem_count; i++)
        *problems++ = checkpoint->problems[i];
    for (uint32_t i = 0; i < told->count; i++)
        for (uint32_t k = 0; k < told->layouts[i].layout->problem_count; k++)
            *problems++ = told->layouts[i].layout->problems[k];
}

static void take_notes(struct taking *taking)
{
    const struct unshard_checkpoint *checkpoint = taking->checkpoint;
    const struct told *told = &taking->engine->told;
    uint32_t count = checkpoint->note_count;
    for (uint32_t i = 0; i < told->count; i++)
        count += told->layouts[i].layout->note_count;
    const char **notes = arena_alloc_array(taking->arena, count, sizeof *notes);
    taking->failed |= notes == NULL;
    if (notes == NULL)
        return;
    taking->status->notes = taking->notes = notes;
    taking->status->note_count = count;
    for (uint32_t i = 0; i < checkpoint->note_count; i++)
        *notes++ = checkpoint->notes[i];
    for (uint32_t i = 0; i < told->count; i++)
        for (uint32_t k = 0; k < told->layouts[i].layout->note_count; k++)
            *notes++ = copy_string(taking, told->layouts[i].layout->notes[k]);
}

static uint32_t count_told_components(const struct taking *taking)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < taking->engine->told.count; i++)
        count += taking->engine->told.layouts[i].components.count;
    return count;
}

/* Nothing of it is the engine's: what is known is what the layout says. */
static void take_told_file(struct taking *taking, const struct source_file *file,
                           const char *component, struct unshard_file_status *out)
{
    *out = (struct unshard_file_status){
        .path = copy_string(taking, file->path),
        .component = component,
        .state = file->failed ? UNSHARD_STATE_FAILED : UNSHARD_STATE_PENDING,
        .error = file->error != NULL ? copy_error(taking, file->error) : NULL};
}

static void take_told_files(struct taking *taking)
{
    const struct told *told = &taking->engine->told;
    uint32_t count = 0;
    for (uint32_t i = 0; i < told->count; i++)
        count += told->layouts[i].files.count;
    taking->told_files = arena_alloc_array(taking->arena, count, sizeof *taking->told_files);
    taking->failed |= taking->told_files == NULL;
    for (uint32_t i = 0; taking->told_files != NULL && i < told->count; i++)
        for (uint32_t k = 0; k < told->layouts[i].files.count; k++) {
            const struct unshard_checkpoint *layout = told->layouts[i].layout;
            take_told_file(taking, &layout->files[told->layouts[i].files.numbers[k]], NULL,
                           &taking->told_files[taking->told_file_count++]);
        }
}

static const struct unshard_file_status *const *
take_told_shards(struct taking *taking, const struct unshard_checkpoint *layout,
                 const struct component *component, const char *name)
{
    struct unshard_file_status *shards =
        arena_alloc_array(taking->arena, component->file_count, sizeof *shards);
    const struct unshard_file_status **list = arena_alloc_array(
        taking->arena, component->file_count, sizeof(struct unshard_file_status *));
    taking->failed |= shards == NULL || list == NULL;
    for (uint32_t i = 0; !taking->failed && i < component->file_count; i++) {
        take_told_file(taking, &layout->files[component->files[i]], name, &shards[i]);
        list[i] = &shards[i];
    }
    return list;
}

static void take_told_component(struct taking *taking, const struct unshard_checkpoint *layout,
                                uint32_t number, struct unshard_component_status *out)
{
    const struct component *component = &layout->components[number];
    *out = (struct unshard_component_status){
        .name = copy_string(taking, component->name),
        .view = copy_if(taking, component->view_path),
        .format = copy_if(taking, component->format),
        .prefix = copy_if(taking, component->prefix),
        .state = component->failed ? UNSHARD_STATE_FAILED : UNSHARD_STATE_UNVERIFIED,
        .error = component->failed ? copy_error(taking, &component->error) : NULL,
        .notes = copy_strings(taking, component->notes, component->note_count),
        .note_count = component->note_count,
        .shard_count = component->file_count};
    out->shards = take_told_shards(taking, layout, component, out->name);
}

static void take_told_components(struct taking *taking, struct unshard_component_status *out)
{
    const struct told *told = &taking->engine->told;
    for (uint32_t i = 0; i < told->count; i++)
        for (uint32_t k = 0; k < told->layouts[i].components.count; k++)
            take_told_component(taking, told->layouts[i].layout,
                                told->layouts[i].components.numbers[k], out++);
}

/* ---- from what was taken -----------------------------------------------------------------------
 */

static bool is_done(enum unshard_state state)
{
    return state == UNSHARD_STATE_VERIFIED || state == UNSHARD_STATE_UNVERIFIED;
}

/* Of a shard of which a part is gathered: the worst of both; else done when both are, begun when
 * one is. */
static enum unshard_state joint_state(const struct taken_file *shard, enum unshard_state part)
{
    enum unshard_state own = shard->status.state;
    bool matched = own == UNSHARD_STATE_VERIFIED; /* all of it */
    if (own == UNSHARD_STATE_FAILED || part == UNSHARD_STATE_FAILED)
        return UNSHARD_STATE_FAILED;
    if (matched || own == part || (is_done(part) && is_done(own)))
        return shard->shown || matched ? own : part;
    return shard->shown ? UNSHARD_STATE_READING : part;
}

/* Messages begin with the path. */
static bool names_file(const struct unshard_error *error, const char *path)
{
    size_t length = strlen(path);
    return error != NULL && strncmp(error->message, path, length) == 0 &&
           error->message[length] == ':';
}

/* Tells a shard what became of the part of it that is gathered. */
static void fold_into(const struct taken_file *part, double share, uint64_t bytes,
                      struct taken_file *shard)
{
    struct unshard_file_status *out = &shard->status;
    bool to_blame = names_file(part->status.error, out->path);
    out->bytes_total += bytes;
    out->bytes_read += (uint64_t)((double)part->status.bytes_read * share);
    out->bytes_published += (uint64_t)((double)part->status.bytes_published * share);
    out->reading_seconds += part->status.reading_seconds * share;
    if (to_blame)
        out->error = part->status.error;
    if (part->status.state != UNSHARD_STATE_FAILED || to_blame)
        out->state = joint_state(shard, part->status.state);
}

static void fold_gathered(struct taking *taking)
{
    for (uint32_t i = 0; i < taking->count; i++) {
        const struct taken_file *part = &taking->files[taking->numbers[i]];
        const struct gathered *gathered = taking->checkpoint->files[taking->numbers[i]].gathered;
        if (gathered == NULL || (!part->shown && part->status.error == NULL))
            continue; /* nobody waits for it */
        for (uint32_t k = 0; k < gathered->source_count; k++) {
            const struct gathered_source *source = &gathered->sources[k];
            if (taking->files[source->file].taken)
                fold_into(part, (double)source->bytes / (double)gathered->size, source->bytes,
                          &taking->files[source->file]);
        }
    }
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The first file_count of the files that were taken, without gathered ones, in their order. */
static void list_files(struct taking *taking)
{
    struct unshard_status *out = taking->status;
    uint32_t candidates = out->file_count;
    const struct unshard_file_status **files = arena_alloc_array(
        taking->arena, candidates + taking->told_file_count, sizeof(struct unshard_file_status *));
    out->files = files;
    out->file_count = 0;
    taking->failed |= files == NULL;
    if (files == NULL)
        return;
    if (candidates > 0)
        qsort(taking->numbers, candidates, sizeof *taking->numbers, compare_numbers);
    for (uint32_t i = 0; i < candidates; i++)
        if (taking->checkpoint->files[taking->numbers[i]].gathered == NULL &&
            narrow_sees_file(taking, taking->numbers[i]))
            files[out->file_count++] = &taking->files[taking->numbers[i]].status;
    for (uint32_t i = 0; i < taking->told_file_count; i++)
        files[out->file_count++] = &taking->told_files[i];
}

/* Its layout is not known, and only another mount can learn it. */
static bool is_unreadable(const struct unshard_checkpoint *checkpoint,
                          const struct component *component)
{
    return component->failed &&
           (component->view == UNSHARD_NO_VIEW || checkpoint->views[component->view].unreadable);
}

static enum unshard_state component_state(const struct taking *taking,
                                          const struct component *component)
{
    unsigned counts[UNSHARD_STATE_COUNT] = {0};
    for (uint32_t i = 0; i < component->file_count; i++)
        counts[taking->files[component->files[i]].status.state]++;
    unsigned verified = counts[UNSHARD_STATE_VERIFIED];
    unsigned done = verified + counts[UNSHARD_STATE_UNVERIFIED];
    if (is_unreadable(taking->checkpoint, component) || counts[UNSHARD_STATE_FAILED] > 0)
        return UNSHARD_STATE_FAILED;
    if (done == component->file_count)
        return verified == done && done > 0 ? UNSHARD_STATE_VERIFIED : UNSHARD_STATE_UNVERIFIED;
    return done + counts[UNSHARD_STATE_READING] > 0 ? UNSHARD_STATE_READING : UNSHARD_STATE_PENDING;
}

static void add_shards(struct taking *taking, const struct component *component,
                       struct unshard_component_status *out)
{
    const struct unshard_file_status **shards = arena_alloc_array(
        taking->arena, component->file_count, sizeof(struct unshard_file_status *));
    taking->failed |= shards == NULL;
    for (uint32_t i = 0; shards != NULL && i < component->file_count; i++) {
        shards[i] = &taking->files[component->files[i]].status;
        out->bytes_total += shards[i]->bytes_total;
        out->bytes_published += shards[i]->bytes_published;
    }
    out->shards = shards;
    out->shard_count = shards != NULL ? component->file_count : 0;
}

static void fill_component(struct taking *taking, const struct component *component,
                           struct unshard_component_status *out)
{
    *out = (struct unshard_component_status){.name = component->name,
                                             .view = component->view_path,
                                             .format = component->format,
                                             .prefix = component->prefix,
                                             .state = component_state(taking, component),
                                             .evicted = out->evicted,
                                             .notes = component->notes,
                                             .note_count = component->note_count};
    add_shards(taking, component, out);
    if (component->prefix != NULL && out->bytes_total > 0) {
        /* One of several in its files: what is there of these is there of it, on average. */
        out->bytes_published = (uint64_t)((double)component->bytes * (double)out->bytes_published /
                                          (double)out->bytes_total);
        out->bytes_total = component->bytes;
    }
    if (component->failed && out->state == UNSHARD_STATE_FAILED)
        out->error = &component->error;
}

/* A file counts once, however many components it holds. */
static void sum_up(struct taking *taking, const struct number_list *numbers)
{
    for (uint32_t i = 0; i < numbers->count; i++) {
        const struct component *component = &taking->checkpoint->components[numbers->numbers[i]];
        for (uint32_t k = 0; k < component->file_count; k++) {
            struct taken_file *file = &taking->files[component->files[k]];
            if (file->counted)
                continue;
            file->counted = true;
            taking->status->bytes_total += file->status.bytes_total;
            taking->status->bytes_published += file->status.bytes_published;
        }
    }
}

static unsigned count_failed_components(const struct unshard_status *status)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < status->component_count; i++)
        count += status->components[i].state == UNSHARD_STATE_FAILED;
    return count;
}

static unsigned count_other_failed_files(const struct unshard_status *status)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < status->file_count; i++)
        count += status->files[i]->component == NULL && status->files[i]->error != NULL;
    return count;
}

/* new_problems: what has gone wrong since the mount was made, and not in a component. */
static enum unshard_mount_state mount_state(const struct taking *taking, unsigned failed,
                                            unsigned new_problems)
{
    const struct unshard_status *status = taking->status;
    if (taking->no_stores)
        return UNSHARD_MOUNT_STOPPING;
    if (failed > 0)
        return failed == status->component_count ? UNSHARD_MOUNT_FAILED : UNSHARD_MOUNT_DEGRADED;
    if (new_problems > 0)
        return UNSHARD_MOUNT_DEGRADED;
    if (status->paused_reason != NULL)
        return UNSHARD_MOUNT_PAUSED;
    return taking->planned || taking->busy ? UNSHARD_MOUNT_PREFETCHING : UNSHARD_MOUNT_READY;
}

static void judge(struct taking *taking)
{
    struct unshard_status *status = taking->status;
    unsigned failed = count_failed_components(status);
    unsigned other = count_other_failed_files(status);
    unsigned gone = status->problem_count - taking->old_problems;
    status->state = mount_state(taking, failed, other + gone);
    status->errors = failed + other + status->problem_count;
}

/* ---- the whole, and one view -------------------------------------------------------------------
 */

/* Those at directories, of which only the mount knows. */
static void take_looks(struct taking *taking)
{
    const struct unshard_publisher *publisher = &taking->engine->publisher;
    struct unshard_looks *out = &taking->status->looks;
    if (publisher->looks == NULL)
        return;
    publisher->looks(publisher->context, out);
    struct unshard_stuck_look *lent = out->stuck;
    out->stuck = arena_alloc_array(taking->arena, out->stuck_count, sizeof *lent);
    taking->failed |= out->stuck == NULL;
    for (uint32_t i = 0; out->stuck != NULL && i < out->stuck_count; i++)
        out->stuck[i] = (struct unshard_stuck_look){
            .directory = copy_string(taking, lent[i].directory), .seconds = lent[i].seconds};
    free(lent);
}

/* Everything that does not change, or is asked for without the lock. */
static void fill_constants(struct taking *taking)
{
    const struct unshard_engine *engine = taking->engine;
    struct unshard_mount_facts facts = {0};
    struct unshard_status *out = taking->status;
    if (engine->publisher.describe != NULL)
        engine->publisher.describe(engine->publisher.context, &facts);
    out->version = UNSHARD_VERSION;
    out->pid = getpid();
    out->source = taking->checkpoint->source;
    out->mountpoint = facts.mountpoint;
    out->connection = facts.connection;
    out->read_ahead_bytes = facts.read_ahead_bytes;
    out->restarts = facts.restarts;
    out->restart_time = facts.restart_time;
    out->restart_reason = facts.restart_reason;
    out->time = (int64_t)time(NULL);
    out->verify = engine->options.verify;
    out->prefetch = engine->options.prefetch;
    take_looks(taking);
}

/* By request, and of any of its views. The caller holds engine->lock. */
static void take_evicted(struct taking *taking, const struct number_list *numbers,
                         struct unshard_component_status *components)
{
    for (uint32_t v = 0; v < taking->checkpoint->view_count; v++) {
        if (!taking->engine->views[v].evicted)
            continue;
        uint32_t component = taking->checkpoint->views[v].component;
        for (uint32_t i = 0; i < numbers->count; i++)
            if (numbers->numbers[i] == component)
                components[i].evicted = true;
    }
}

/* Those that somebody reads. NULL when memory is short. */
static bool *find_opened(const struct taking *taking)
{
    const struct unshard_checkpoint *checkpoint = taking->checkpoint;
    bool *opened = calloc((size_t)checkpoint->component_count + 1, sizeof *opened);
    for (uint32_t v = 0; opened != NULL && v < checkpoint->view_count; v++)
        if (taking->engine->views[v].opened > 0 && checkpoint->views[v].component != NO_COMPONENT)
            opened[checkpoint->views[v].component] = true;
    return opened;
}

/* Where another one has the place of a component by now, that is of interest for as long as
 * somebody reads it. The caller holds engine->lock. */
static void leave_replaced_out(struct taking *taking, struct number_list *numbers)
{
    bool *stays = find_opened(taking);
    uint32_t kept = 0;
    taking->failed |=
        stays == NULL || registry_find_newest(&taking->engine->registry, numbers, stays) != 0;
    for (uint32_t i = 0; stays != NULL && i < numbers->count; i++)
        if (stays[numbers->numbers[i]])
            numbers->numbers[kept++] = numbers->numbers[i];
    numbers->count = kept;
    free(stays);
}

/* The components that there are now, still to be filled in, and their numbers. The caller holds
 * engine->lock. */
static void take_components(struct taking *taking, struct number_list *numbers)
{
    uint32_t most = taking->checkpoint->component_count;
    uint32_t told = count_told_components(taking);
    struct unshard_component_status *components =
        arena_alloc_array(taking->arena, most + told, sizeof *components);
    taking->failed |= components == NULL || number_list_reserve(numbers, most) != 0;
    if (taking->failed)
        return;
    registry_list_components(&taking->engine->registry, numbers);
    leave_replaced_out(taking, numbers);
    take_evicted(taking, numbers, components);
    take_told_components(taking, components + numbers->count);
    taking->components = components;
    taking->told_component_count = told;
}

/* Works out what is told of what was taken. */
static void fill_whole(struct taking *taking, struct number_list *numbers)
{
    struct unshard_status *out = taking->status;
    fold_gathered(taking);
    for (uint32_t i = 0; i < numbers->count; i++)
        fill_component(taking, &taking->checkpoint->components[numbers->numbers[i]],
                       &taking->components[i]);
    narrow_components(taking, numbers);
    narrow_rest(taking);
    list_files(taking);
    out->components = taking->components;
    out->component_count = numbers->count + taking->told_component_count;
    sum_up(taking, numbers);
    judge(taking);
}

static void take_whole(struct taking *taking)
{
    struct unshard_engine *engine = taking->engine;
    struct number_list numbers = {0};
    fill_constants(taking);
    lock_with_room(taking);
    uint64_t now = engine_now_ns();
    taking->status->uptime_seconds = seconds_of(now - engine->start_ns);
    take_components(taking, &numbers);
    take_all_files(taking);
    take_reading(taking, now);
    take_figures(taking);
    take_problems(taking);
    take_notes(taking);
    take_told_files(taking);
    narrow_take(taking);
    pthread_mutex_unlock(&engine->lock);
    if (!taking->failed)
        fill_whole(taking, &numbers);
    number_list_free(&numbers);
}

/* That of the component whose file the view is; where each file of it has a view of its own, of
 * that file. */
static enum unshard_state view_state(const struct taking *taking, const struct view *view)
{
    uint32_t file = view->map.count == 1 ? view->map.extents[0].source : EXTENT_LITERAL;
    if (view->component == NO_COMPONENT)
        return UNSHARD_STATE_UNVERIFIED;
    if (file != EXTENT_LITERAL && taking->checkpoint->files[file].as_is)
        return taking->files[file].status.state;
    return taking->status->components[0].state;
}

static void take_one_view(struct taking *taking, uint32_t number)
{
    struct unshard_engine *engine = taking->engine;
    struct unshard_status *out = taking->status;
    const struct view *view = &taking->checkpoint->views[number];
    struct unshard_component_status *component = arena_alloc(taking->arena, sizeof *component);
    taking->failed |= component == NULL;
    if (component == NULL)
        return;
    lock_with_room(taking);
    if (!taking->failed)
        take_files_of_view(taking, number);
    pthread_mutex_unlock(&engine->lock);
    if (taking->failed)
        return;
    fold_gathered(taking);
    list_files(taking);
    if (view->component != NO_COMPONENT) {
        fill_component(taking, &taking->checkpoint->components[view->component], component);
        if (!view->unreadable)
            component->error = NULL;
        out->components = component;
        out->component_count = 1;
    }
    out->view_state = view_state(taking, view);
}

static void end_observing(void *context)
{
    struct unshard_engine *engine = context;
    atomic_fetch_sub(&engine->observers, 1);
}

static struct unshard_status *take(struct unshard_engine *engine, uint32_t view,
                                   const struct unshard_audience *audience)
{
    struct taking taking = {.engine = engine, .checkpoint = engine->checkpoint};
    taking.narrowing.audience = audience;
    atomic_fetch_add(&engine->observers, 1);
    taking.status = status_new(0, &taking.arena);
    if (taking.status == NULL) {
        end_observing(engine);
        return NULL;
    }
    status_on_free(taking.status, end_observing, engine);
    if (view != UNSHARD_NO_VIEW)
        take_one_view(&taking, view);
    else
        take_whole(&taking);
    free(taking.numbers);
    if (!taking.failed)
        return taking.status;
    unshard_status_free(taking.status);
    return NULL;
}

struct unshard_status *unshard_status_take(struct unshard_engine *engine, uint32_t view)
{
    return take(engine, view, NULL);
}

struct unshard_status *unshard_status_take_for(struct unshard_engine *engine,
                                               const struct unshard_audience *audience)
{
    return take(engine, UNSHARD_NO_VIEW, audience);
}
