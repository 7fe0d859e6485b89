/* SPDX-License-Identifier: MIT */
#include "engine/admit.h"
#include "engine/budget.h"
#include "engine/engine_internal.h"

#include "base/error.h"
#include "base/lazy_array.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

uint64_t engine_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void engine_log(struct unshard_engine *engine, int priority, const char *format, ...)
{
    char line[1536];
    va_list arguments;
    if (engine->publisher.log == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    engine->publisher.log(engine->publisher.context, priority, line);
}

static void agenda_free(struct unshard_engine *engine)
{
    struct agenda *agenda = &engine->agenda;
    struct number_set *sets[] = {&agenda->suspects,    &agenda->holding,
                                 &agenda->putting_off, &agenda->arrived,
                                 &agenda->leaving,     &agenda->permissions_changed,
                                 &agenda->resting,     &agenda->views_to_follow,
                                 &agenda->unneeded,    &agenda->giving_back};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        number_set_free(sets[i]);
}

static void engine_free(struct unshard_engine *engine)
{
    staging_free(&engine->staging);
    engine_discard_all(engine);
    checks_free(engine);
    buffers_destroy(&engine->buffers);
    lazy_array_free(engine->files, checkpoint_file_room(engine->checkpoint), sizeof *engine->files);
    lazy_array_free(engine->views, checkpoint_view_room(engine->checkpoint), sizeof *engine->views);
    lazy_array_free(engine->plan.views, engine->plan.room, sizeof *engine->plan.views);
    drop_behind_free(engine);
    held_pages_free(&engine->held);
    agenda_free(engine);
    source_free(engine->source);
    told_free(&engine->told);
    registry_free(&engine->registry);
    pthread_mutex_destroy(&engine->attaching);
    pthread_mutex_destroy(&engine->lock);
    pthread_cond_destroy(&engine->threads.work);
    pthread_cond_destroy(&engine->threads.store_work);
    pthread_cond_destroy(&engine->threads.tick);
    pthread_cond_destroy(&engine->pages.stores_done);
    free(engine);
}

uint64_t unshard_digest_chunk_bytes(const struct unshard_checkpoint *checkpoint)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct expectation *expectation = checkpoint->files[i].expectation;
        if (expectation != NULL && expectation->chunks != NULL &&
            expectation->chunks->chunk_bytes > most)
            most = expectation->chunks->chunk_bytes;
    }
    return most;
}

/* A chunk is checked as a whole: it must not be smaller than what a manifest has digests of, as far
 * as buffers allow. */
static void raise_chunk_size(struct unshard_engine *engine,
                             const struct unshard_checkpoint *checkpoint)
{
    struct unshard_fetch_options *options = &engine->options;
    uint64_t needed = unshard_digest_chunk_bytes(checkpoint);
    if (needed < options->digest_chunk_bytes)
        needed = options->digest_chunk_bytes;
    if (options->verify != UNSHARD_VERIFY_OFF && needed > options->chunk_bytes &&
        needed <= options->buffer_bytes / LEAST_BUFFERS)
        options->chunk_bytes = needed;
}

static void set_options(struct unshard_engine *engine, const struct unshard_checkpoint *checkpoint,
                        const struct unshard_fetch_options *options,
                        const struct unshard_publisher *publisher)
{
    engine->options = *options;
    if (engine->options.chunk_bytes == 0)
        engine->options.chunk_bytes = DEFAULT_CHUNK_BYTES;
    if (engine->options.buffer_bytes == 0)
        engine->options.buffer_bytes = DEFAULT_BUFFER_BYTES;
    if (engine->options.read_timeout_seconds <= 0)
        engine->options.read_timeout_seconds = DEFAULT_READ_TIMEOUT_SECONDS;
    raise_chunk_size(engine, checkpoint);
    engine->chunk_bytes = (uint32_t)engine->options.chunk_bytes;
    engine->pages.no_stores = publisher == NULL || publisher->store == NULL;
    if (publisher != NULL)
        engine->publisher = *publisher;
    engine->start_ns = engine->traffic.rate_ns = engine_now_ns();
}

static void init_locks(struct unshard_engine *engine)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&engine->attaching, NULL);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->threads.work, &monotonic);
    pthread_cond_init(&engine->threads.store_work, &monotonic);
    pthread_cond_init(&engine->threads.tick, &monotonic);
    pthread_cond_init(&engine->pages.stores_done, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* As much as the budget can ever be (window.c). */
static uint64_t most_staged_bytes(const struct unshard_engine *engine)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    bool stages = engine->options.verify == UNSHARD_VERIFY_STRICT && pages > 0;
    return stages ? (uint64_t)pages / 4 * PAGE_BYTES : 0;
}

static int agenda_init(struct unshard_engine *engine)
{
    struct agenda *agenda = &engine->agenda;
    uint32_t files = checkpoint_file_room(engine->checkpoint);
    uint32_t views = checkpoint_view_room(engine->checkpoint);
    struct number_set *of_files[] = {&agenda->suspects,    &agenda->holding,
                                     &agenda->putting_off, &agenda->arrived,
                                     &agenda->leaving,     &agenda->permissions_changed};
    struct number_set *of_views[] = {&agenda->resting, &agenda->unneeded, &agenda->views_to_follow,
                                     &agenda->giving_back};
    int result = 0;
    for (size_t i = 0; i < sizeof of_files / sizeof of_files[0] && result == 0; i++)
        result = number_set_init(of_files[i], files);
    for (size_t i = 0; i < sizeof of_views / sizeof of_views[0] && result == 0; i++)
        result = number_set_init(of_views[i], views);
    return result;
}

static int allocate(struct unshard_engine *engine)
{
    uint32_t files = checkpoint_file_room(engine->checkpoint);
    uint32_t views = checkpoint_view_room(engine->checkpoint);
    engine->files = lazy_array_new(files, sizeof *engine->files);
    engine->views = lazy_array_new(views, sizeof *engine->views);
    engine->plan.room = (size_t)views + 1;
    engine->plan.views = lazy_array_new(engine->plan.room, sizeof *engine->plan.views);
    if (engine->files == NULL || engine->views == NULL || engine->plan.views == NULL)
        return -ENOMEM;
    int result = drop_behind_init(engine);
    if (result == 0)
        result = buffers_init(&engine->buffers, engine->options.buffer_bytes, engine->chunk_bytes,
                              most_staged_bytes(engine));
    if (result == 0)
        result = staging_init(&engine->staging, &engine->buffers, files);
    if (result == 0)
        result = held_pages_init(&engine->held, LEAST_HELD_PAGES);
    return result == 0 ? agenda_init(engine) : result;
}

/* All but the threads. */
static int engine_make(struct unshard_engine *engine, const struct unshard_checkpoint *checkpoint,
                       const struct unshard_fetch_options *options,
                       const struct unshard_publisher *publisher, struct unshard_error *error)
{
    int result = registry_init(&engine->registry, checkpoint);
    engine->checkpoint = &engine->registry.all;
    init_locks(engine);
    set_options(engine, checkpoint, options, publisher);
    if (result == 0)
        result = allocate(engine);
    if (result != 0)
        return error_set(error, "no-memory", -result, "cannot allocate the prefetcher: %s",
                         strerror(-result));
    result = source_create(engine->checkpoint, &engine->source, error);
    if (result != 0)
        return result;
    result = checks_init(engine);
    if (result == 0)
        result = engine_admit_all(engine, checkpoint);
    return result == 0 ? 0 : error_no_memory(error);
}

int unshard_engine_start(const struct unshard_checkpoint *checkpoint,
                         const struct unshard_fetch_options *options,
                         const struct unshard_publisher *publisher, struct unshard_engine **out,
                         struct unshard_error *error)
{
    struct unshard_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return error_no_memory(error);
    int result = engine_make(engine, checkpoint, options, publisher, error);
    if (result != 0) {
        engine_free(engine);
        return result;
    }
    uint64_t available = unshard_available_memory();
    pthread_mutex_lock(&engine->lock);
    window_update(engine, available);
    jobs_init(&engine->jobs, engine->options.jobs, (unsigned)(buffers_for_stores(&engine->buffers)),
              engine->processors, engine->start_ns);
    engine->runs.runs = engine->threads.run_of;
    readers_spawn(engine);
    storers_spawn(engine);
    engine->pages.most_queued = 2 * engine->threads.storer_count + 4;
    bool running =
        engine->threads.reader_count > READERS_FOR_DEMANDS && engine->threads.storer_count > 0;
    engine->threads.housekeeper_running =
        running && pthread_create(&engine->threads.housekeeper, NULL, housekeeper, engine) == 0;
    engine->threads.watcher_running =
        engine->threads.housekeeper_running &&
        pthread_create(&engine->threads.watcher, NULL, file_watcher, engine) == 0;
    running = engine->threads.watcher_running;
    pthread_mutex_unlock(&engine->lock);
    if (!running) {
        unshard_engine_stop(engine);
        return error_set(error, "no-threads", EAGAIN, "cannot start threads");
    }
    *out = engine;
    return 0;
}

void view_forget(struct unshard_engine *engine, uint32_t view)
{
    const struct extent_map *map = view_map(engine, view);
    uint32_t last = EXTENT_LITERAL;
    for (size_t i = 0; i < map->count; i++) {
        uint32_t file = map->extents[map->by_source[i]].source;
        if (file == EXTENT_LITERAL || file == last)
            continue;
        last = file;
        const struct file_state *state = &engine->files[file];
        for (uint32_t c = chunk_next_touched(state, 0); c < state->chunk_count;
             c = chunk_next_touched(state, c + 1))
            chunk_forget(engine, file, c, WANTED_BY_PLAN);
        schedule_offer(engine, file);
    }
}

void unshard_engine_view_known(struct unshard_engine *engine, uint32_t view, bool known)
{
    pthread_mutex_lock(&engine->lock);
    bool changed = engine->views[view].known != known;
    engine->views[view].known = known;
    if (changed && !known && engine->checkpoint->views[view].prefetch)
        view_forget(engine, view);
    if (changed && known) {
        schedule_note_store(engine, view, false);
        schedule_offer_view(engine, view);
    }
    pthread_mutex_unlock(&engine->lock);
    if (changed && !known)
        held_pages_forget(&engine->held, view);
}

/* timeout_ms from now, on the clock that the engine's conditions use. */
static struct timespec deadline_after(unsigned timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

int unshard_engine_view_evict(struct unshard_engine *engine, uint32_t view, unsigned timeout_ms)
{
    struct timespec until = deadline_after(timeout_ms);
    int result = 0;
    pthread_mutex_lock(&engine->lock);
    engine->views[view].evicted = true;
    while (engine->views[view].storing > 0 && result == 0)
        result = pthread_cond_timedwait(&engine->pages.stores_done, &engine->lock, &until);
    view_forget(engine, view);
    pthread_mutex_unlock(&engine->lock);
    held_pages_forget(&engine->held, view);
    return -result;
}

/* Nothing of the view waits for a time, and the plan wants what readers have passed. */
static void wake_view(struct unshard_engine *engine, uint32_t view)
{
    const struct extent_map *map = view_map(engine, view);
    for (uint32_t i = extent_map_next_source(map, 0); i != EXTENT_LITERAL;
         i = extent_map_next_source(map, i + 1)) {
        struct file_state *file = &engine->files[i];
        wanted_wake(&file->wanted);
        file->rests = 0;
        for (uint32_t c = chunk_next_touched(file, 0); c < file->chunk_count;
             c = chunk_next_touched(file, c + 1))
            if (file->chunks[c].state == CHUNK_ABSENT)
                wanted_put(&file->wanted, c, WANTED_BY_PLAN);
    }
    schedule_note_store(engine, view, false);
}

void unshard_engine_view_warm(struct unshard_engine *engine, uint32_t view)
{
    pthread_mutex_lock(&engine->lock);
    engine->views[view].evicted = false;
    view_forget(engine, view);
    wake_view(engine, view);
    schedule_offer_view(engine, view);
    pthread_mutex_unlock(&engine->lock);
}

/* Another file is in the place of this one, or of one that it is gathered from, and only views that
 * are planned anew can show it. Caller holds engine->lock. */
static bool needs_other_views(const struct unshard_engine *engine, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    bool needs = engine->files[number].gate.reason == GATE_LAYOUT;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count && !needs; i++)
        needs = needs_other_views(engine, gathered->sources[i].file);
    return needs;
}

/* Nobody reads a byte of it, so that no read tells what is wrong with it. Caller holds
 * engine->lock.
 */
static bool is_empty_and_wrong(const struct unshard_engine *engine, uint32_t view)
{
    uint32_t file = engine->checkpoint->views[view].file;
    return view_map(engine, view)->size == 0 && file != EXTENT_LITERAL &&
           gate_is_blocked(&engine->files[file].gate);
}

bool unshard_engine_view_stale(struct unshard_engine *engine, uint32_t view)
{
    const struct extent_map *map = view_map(engine, view);
    pthread_mutex_lock(&engine->lock);
    bool stale = is_empty_and_wrong(engine, view);
    for (uint32_t source = extent_map_next_source(map, 0); source != EXTENT_LITERAL && !stale;
         source = extent_map_next_source(map, source + 1))
        stale = needs_other_views(engine, source);
    pthread_mutex_unlock(&engine->lock);
    return stale;
}

int unshard_engine_tell(struct unshard_engine *engine, struct unshard_checkpoint *layout)
{
    pthread_mutex_lock(&engine->lock);
    int result = told_add(&engine->told, layout);
    pthread_mutex_unlock(&engine->lock);
    return result;
}

void unshard_engine_tell_no_more(struct unshard_engine *engine, struct unshard_checkpoint *layout)
{
    struct unshard_checkpoint *released;
    pthread_mutex_lock(&engine->lock);
    told_remove(&engine->told, layout, &released);
    pthread_mutex_unlock(&engine->lock);
    unshard_layout_release(released);
}

bool unshard_engine_prefetch(struct unshard_engine *engine, uint32_t view, uint64_t model)
{
    if (engine->options.prefetch != UNSHARD_PREFETCH_OPEN || !plan_takes(engine, view))
        return false;
    uint64_t available = available_memory_lately();
    pthread_mutex_lock(&engine->lock);
    struct view_state *state = &engine->views[view];
    bool news = !state->planned;
    state->model = model;
    state->used_ns = engine_now_ns();
    if (news) {
        budget_make_room(engine, engine->checkpoint->views[view].size, model, available);
        plan_add(engine, view);
        passes_plan_view(engine, view);
        window_update(engine, available);
        schedule_offer_view(engine, view);
    }
    pthread_mutex_unlock(&engine->lock);
    return news;
}

void unshard_engine_view_opened(struct unshard_engine *engine, uint32_t view, bool direct,
                                int change)
{
    pthread_mutex_lock(&engine->lock);
    engine->views[view].opened += (unsigned)change;
    engine->views[view].direct += direct ? (unsigned)change : 0U;
    engine->views[view].used_ns = engine_now_ns();
    if (engine->views[view].opened == 0)
        schedule_closed(engine, view);
    pthread_mutex_unlock(&engine->lock);
}

struct unshard_view_facts unshard_engine_view_facts(struct unshard_engine *engine, uint32_t view)
{
    const struct view *planned = &engine->checkpoint->views[view];
    const struct unshard_node *node = planned->shown_as;
    struct unshard_view_facts facts = {.size = planned->size, .mtime_ns = node->mtime_ns};
    pthread_mutex_lock(&engine->lock);
    if (engine->views[view].replaced) {
        facts.size = view_map(engine, view)->size;
        facts.mtime_ns = engine->views[view].mtime_ns;
    }
    struct permissions permissions = view_permissions(engine, view);
    pthread_mutex_unlock(&engine->lock);
    facts.mode = (node->mode & S_IFMT) | permissions.mode;
    facts.uid = permissions.uid;
    facts.gid = permissions.gid;
    return facts;
}

/* Drops chunks that wait for a store. Caller holds engine->lock. */
static void drop_stores(struct unshard_engine *engine)
{
    for (struct fetch *fetch; (fetch = engine->queues.stores.first) != NULL;) {
        fetch_list_remove(&engine->queues.stores, fetch);
        fetch_release(engine, fetch);
    }
}

int unshard_engine_quiesce(struct unshard_engine *engine, unsigned timeout_ms)
{
    struct timespec until = deadline_after(timeout_ms);
    int result = 0;
    pthread_mutex_lock(&engine->lock);
    engine->pages.no_stores = true;
    drop_stores(engine);
    while (engine->pages.stores_running > 0 && result == 0)
        result = pthread_cond_timedwait(&engine->pages.stores_done, &engine->lock, &until);
    pthread_mutex_unlock(&engine->lock);
    return -result;
}

static void join_all(struct unshard_engine *engine)
{
    for (unsigned i = 0; i < engine->threads.reader_count; i++)
        pthread_join(engine->threads.readers[i], NULL);
    for (unsigned i = 0; i < engine->threads.storer_count; i++)
        pthread_join(engine->threads.storers[i], NULL);
}

/* Answers what no worker took. All threads have ended. */
static void fail_queue(struct unshard_engine *engine, struct fetch_list *list)
{
    for (struct fetch *fetch; (fetch = list->first) != NULL;) {
        fetch_list_remove(list, fetch);
        if (fetch->detached) {
            fetch_cancel(engine, fetch, NULL);
            continue;
        }
        waiters_complete(fetch->waiters, NULL, ESHUTDOWN);
        struct chunk *chunk = chunk_of(engine, fetch);
        chunk->fetch = NULL;
        chunk->state = CHUNK_ABSENT;
        wanted_put(&engine->files[fetch->file].wanted, fetch->index, WANTED_BY_PLAN);
        fetch_free(fetch);
    }
}

void unshard_engine_stop(struct unshard_engine *engine)
{
    if (engine == NULL)
        return;
    pthread_mutex_lock(&engine->lock);
    engine->stopping = engine->pages.no_stores = true;
    pthread_cond_broadcast(&engine->threads.work);
    pthread_cond_broadcast(&engine->threads.store_work);
    pthread_cond_broadcast(&engine->threads.tick);
    pthread_cond_broadcast(&engine->pages.stores_done);
    pthread_mutex_unlock(&engine->lock);
    source_cancel(engine->source);
    if (engine->threads.housekeeper_running)
        pthread_join(engine->threads.housekeeper, NULL);
    if (engine->threads.watcher_running)
        pthread_join(engine->threads.watcher, NULL);
    join_all(engine);
    drop_stores(engine);
    fail_queue(engine, &engine->queues.demand);
    fail_queue(engine, &engine->queues.retries);
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++)
        if (engine->files[i].used)
            fail_queue(engine, &engine->files[i].held);
    engine_free(engine);
}
