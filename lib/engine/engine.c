/* SPDX-License-Identifier: MIT */
#include "engine/engine_internal.h"

#include "base/error.h"
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

/* The end of the last byte that any view shows of each file: a file that is shorter than its header
 * says is asked for all the same, and answers with an error. */
static void find_file_sizes(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        engine->files[i].size = source_file_is_too_large(&checkpoint->files[i])
                                    ? 0 /* no view shows it */
                                    : checkpoint->files[i].size;
    for (uint32_t v = 0; v < checkpoint->view_count; v++) {
        const struct extent_map *map = &checkpoint->views[v].map;
        for (size_t e = 0; e < map->count; e++) {
            const struct extent *extent = &map->extents[e];
            uint64_t next = e + 1 < map->count ? extent[1].view_offset : map->size;
            uint64_t end = extent->source_offset + (next - extent->view_offset);
            if (extent->source != EXTENT_LITERAL && end > engine->files[extent->source].size)
                engine->files[extent->source].size = end;
        }
    }
}

static int allocate_chunks(struct unshard_engine *engine)
{
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++) {
        struct file_state *file = &engine->files[i];
        int result = file_chunks_make(engine, file, file->size);
        if (result != 0)
            return result;
    }
    return 0;
}

/* Calls found(engine, file, view) once for each file that a view shows. */
static void for_each_file_of_views(struct unshard_engine *engine,
                                   void (*found)(struct unshard_engine *, uint32_t, uint32_t))
{
    for (uint32_t v = 0; v < engine->checkpoint->view_count; v++) {
        const struct extent_map *map = &engine->checkpoint->views[v].map;
        uint32_t last = EXTENT_LITERAL;
        for (size_t i = 0; i < map->count; i++) {
            uint32_t source = map->extents[map->by_source[i]].source;
            if (source != EXTENT_LITERAL && source != last)
                found(engine, source, v);
            last = source;
        }
    }
}

static void count_view(struct unshard_engine *engine, uint32_t file, uint32_t view)
{
    (void)view;
    engine->files[file].view_count++;
}

static void add_view(struct unshard_engine *engine, uint32_t file, uint32_t view)
{
    struct file_state *state = &engine->files[file];
    engine->file_views[state->first_view + state->view_count++] = view;
}

static int index_views_by_file(struct unshard_engine *engine)
{
    uint32_t total = 0;
    for_each_file_of_views(engine, count_view);
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++) {
        engine->files[i].first_view = total;
        total += engine->files[i].view_count;
        engine->files[i].view_count = 0;
    }
    engine->file_views = calloc(total + 1U, sizeof *engine->file_views);
    if (engine->file_views == NULL)
        return -ENOMEM;
    for_each_file_of_views(engine, add_view);
    return 0;
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

static int make_plan(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    engine->plan.views = calloc(checkpoint->view_count + 1U, sizeof *engine->plan.views);
    if (engine->plan.views == NULL)
        return -ENOMEM;
    for (uint32_t v = 0; v < checkpoint->view_count; v++)
        if (checkpoint->views[v].prefetch && checkpoint->views[v].component != NO_COMPONENT) {
            engine->plan.views[engine->plan.count++] = v;
            engine->plan.total_bytes += checkpoint->views[v].size;
        }
    qsort_r(engine->plan.views, engine->plan.count, sizeof *engine->plan.views, compare_load_order,
            (void *)checkpoint);
    return 0;
}

static void engine_free(struct unshard_engine *engine)
{
    checks_free(engine);
    staging_free(&engine->staging);
    for (uint32_t i = 0; engine->files != NULL && i < engine->checkpoint->file_count; i++) {
        file_chunks_free(&engine->files[i]);
        gate_free(&engine->files[i].gate);
        free(engine->files[i].trouble);
        epoch_release(engine->files[i].epoch);
    }
    buffers_destroy(&engine->buffers);
    plain_files_free(engine);
    free(engine->files);
    free(engine->file_views);
    free(engine->dependents);
    free(engine->views);
    free(engine->plan.views);
    drop_behind_free(engine);
    held_pages_free(&engine->held);
    number_set_free(&engine->agenda.suspects);
    number_set_free(&engine->agenda.holding);
    number_set_free(&engine->agenda.putting_off);
    number_set_free(&engine->agenda.resting);
    view_permissions_free(engine);
    source_free(engine->source);
    pthread_mutex_destroy(&engine->lock);
    pthread_cond_destroy(&engine->threads.work);
    pthread_cond_destroy(&engine->threads.store_work);
    pthread_cond_destroy(&engine->threads.tick);
    pthread_cond_destroy(&engine->pages.stores_done);
    free(engine);
}

/* A chunk is checked as a whole: it must not be smaller than what a manifest has digests of, as far
 * as buffers allow. */
static void raise_chunk_size(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct expectation *expectation = checkpoint->files[i].expectation;
        if (engine->options.verify != UNSHARD_VERIFY_OFF && expectation != NULL &&
            expectation->chunks != NULL &&
            expectation->chunks->chunk_bytes > engine->options.chunk_bytes &&
            expectation->chunks->chunk_bytes <= engine->options.buffer_bytes / LEAST_BUFFERS)
            engine->options.chunk_bytes = expectation->chunks->chunk_bytes;
    }
}

static void set_options(struct unshard_engine *engine, const struct unshard_fetch_options *options,
                        const struct unshard_publisher *publisher)
{
    engine->options = *options;
    if (engine->options.chunk_bytes == 0)
        engine->options.chunk_bytes = DEFAULT_CHUNK_BYTES;
    if (engine->options.buffer_bytes == 0)
        engine->options.buffer_bytes = DEFAULT_BUFFER_BYTES;
    if (engine->options.read_timeout_seconds <= 0)
        engine->options.read_timeout_seconds = DEFAULT_READ_TIMEOUT_SECONDS;
    raise_chunk_size(engine);
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

static int allocate(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    engine->files = calloc(checkpoint->file_count + 1U, sizeof *engine->files);
    engine->views = calloc(checkpoint->view_count + 1U, sizeof *engine->views);
    if (engine->files == NULL || engine->views == NULL)
        return -ENOMEM;
    for (uint32_t v = 0; v < checkpoint->view_count; v++)
        atomic_init(&engine->views[v].map, &checkpoint->views[v].map);
    find_file_sizes(engine);
    int result = allocate_chunks(engine);
    if (result == 0)
        result = unread_mark(engine);
    if (result == 0)
        result = gathered_init(engine);
    if (result == 0)
        result = drop_behind_init(engine);
    if (result == 0)
        result = index_views_by_file(engine);
    if (result == 0)
        result = make_plan(engine);
    if (result == 0)
        result = buffers_init(&engine->buffers, engine->options.buffer_bytes, engine->chunk_bytes,
                              most_staged_bytes(engine));
    if (result == 0)
        result = staging_init(&engine->staging, &engine->buffers, checkpoint->file_count);
    if (result == 0)
        result = held_pages_init(&engine->held, LEAST_HELD_PAGES);
    if (result == 0)
        result = number_set_init(&engine->agenda.suspects, checkpoint->file_count);
    if (result == 0)
        result = number_set_init(&engine->agenda.holding, checkpoint->file_count);
    if (result == 0)
        result = number_set_init(&engine->agenda.putting_off, checkpoint->file_count);
    if (result == 0)
        result = number_set_init(&engine->agenda.resting, checkpoint->view_count);
    if (result == 0)
        result = view_permissions_init(engine);
    return result;
}

int unshard_engine_start(const struct unshard_checkpoint *checkpoint,
                         const struct unshard_fetch_options *options,
                         const struct unshard_publisher *publisher, struct unshard_engine **out,
                         struct unshard_error *error)
{
    struct unshard_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return error_no_memory(error);
    engine->checkpoint = checkpoint;
    init_locks(engine);
    set_options(engine, options, publisher);
    int result = allocate(engine);
    if (result != 0)
        error_set(error, "no-memory", -result, "cannot allocate the prefetcher: %s",
                  strerror(-result));
    if (result == 0)
        result = source_create(checkpoint, &engine->source, error);
    if (result == 0 && checks_init(engine) != 0)
        result = error_no_memory(error);
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

static void forget_view(struct unshard_engine *engine, uint32_t view)
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
        forget_view(engine, view);
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
    forget_view(engine, view);
    pthread_mutex_unlock(&engine->lock);
    held_pages_forget(&engine->held, view);
    return -result;
}

/* Nothing of the view waits for a time, and the plan wants what readers have passed. */
static void wake_view(struct unshard_engine *engine, uint32_t view)
{
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++) {
        struct file_state *file = &engine->files[i];
        bool shown = false;
        for (uint32_t k = 0; k < file->view_count; k++)
            shown = shown || engine->file_views[file->first_view + k] == view;
        if (!shown)
            continue;
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
    forget_view(engine, view);
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

bool unshard_engine_view_stale(struct unshard_engine *engine, uint32_t view)
{
    const struct extent_map *map = view_map(engine, view);
    bool stale = false;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t source = extent_map_next_source(map, 0); source != EXTENT_LITERAL && !stale;
         source = extent_map_next_source(map, source + 1))
        stale = needs_other_views(engine, source);
    pthread_mutex_unlock(&engine->lock);
    return stale;
}

void unshard_engine_view_opened(struct unshard_engine *engine, uint32_t view, bool direct,
                                int change)
{
    pthread_mutex_lock(&engine->lock);
    engine->views[view].opened += (unsigned)change;
    engine->views[view].direct += direct ? (unsigned)change : 0U;
    if (engine->views[view].opened == 0)
        schedule_closed(engine, view);
    pthread_mutex_unlock(&engine->lock);
}

struct unshard_view_facts unshard_engine_view_facts(struct unshard_engine *engine, uint32_t view)
{
    const struct view *planned = &engine->checkpoint->views[view];
    const struct unshard_node *node = &engine->checkpoint->nodes[planned->node];
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
        fail_queue(engine, &engine->files[i].held);
    engine_free(engine);
}
