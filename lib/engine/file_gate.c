/* SPDX-License-Identifier: MIT
 *
 * Closing a file to readers, and beginning anew with it.
 *
 * Blocking is done in this order: no read or store of the file begins (blocked, under the lock);
 * what is queued for it is ended; what is being read, or was read and waits to be hashed or stored,
 * is an orphan from then on, which no read finds; stores that run are waited for; then its pages
 * are taken out of the page cache. The last two are not for threads that answer reads: a storer
 * does them. The file does not begin anew before its pages are gone.
 *
 * Of a page that several files share, as much is kept in memory as is there. What it was made of is
 * told by its epoch: it is answered or stored only while that is the one of now, and its store is
 * one of each of these files.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>

static void cancel_of_list(struct unshard_engine *engine, struct fetch_list *list, uint32_t number,
                           struct waiter **waiters)
{
    for (struct fetch *fetch = list->first, *next; fetch != NULL; fetch = next) {
        next = fetch->next;
        if (fetch->file != number)
            continue;
        fetch_list_remove(list, fetch);
        fetch_cancel(engine, fetch, waiters);
    }
}

/* What is on its way is nobody's from now on. Caller holds engine->lock. */
static void disown_fetches(struct unshard_engine *engine, uint32_t number, struct waiter **waiters)
{
    struct file_state *file = &engine->files[number];
    pass_void(engine, number);
    for (uint32_t i = chunk_next_touched(file, 0); i < file->chunk_count;
         i = chunk_next_touched(file, i + 1))
        if (file->chunks[i].fetch != NULL)
            fetch_disown(engine, file->chunks[i].fetch, waiters);
}

/* Every chunk that was published is not any more, and every copy is worth nothing. Caller holds
 * engine->lock. */
static void forget_chunks(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    for (uint32_t i = chunk_next_touched(file, 0); i < file->chunk_count;
         i = chunk_next_touched(file, i + 1)) {
        struct chunk *chunk = &file->chunks[i];
        chunk_forget(engine, number, i, WANTED_BY_PLAN);
        if (chunk->state == CHUNK_FAILED) {
            chunk->state = CHUNK_ABSENT;
            wanted_put(&file->wanted, i, WANTED_BY_PLAN);
            file->chunks_failed--;
        }
        if (chunk->staged)
            engine->staged_bytes -= chunk_length(engine, number, i);
        chunk->staged = false;
        chunk->seen = chunk->checked = chunk->doubted = false;
        chunk->attempts = 0;
    }
    file->chunks_seen = file->chunks_checked = 0;
    file->bytes_seen = 0;
    file->rests = 0;
    wanted_wake(&file->wanted);
}

/* Takes the file's pages, and those that it shares with others, from readers. No lock held. */
static void drop_pages(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->view_count; i++) {
        uint32_t view = engine->file_views[file->first_view + i];
        const struct extent_map *map = view_map(engine, view);
        struct extent_map_images images = extent_map_images_of(map, number, 0, file->size);
        struct extent_piece image;
        while (extent_map_next_image(&images, &image)) {
            uint64_t first = image.view_offset / PAGE_BYTES, end = image.view_offset + image.length;
            held_pages_forget_range(&engine->held, view, first, (end - 1) / PAGE_BYTES);
            if (engine->publisher.drop != NULL)
                engine->publisher.drop(engine->publisher.context, view, first * PAGE_BYTES,
                                       end - first * PAGE_BYTES);
        }
    }
}

/* Whose bytes stand in [start, end) of a view, a part of one page, is to be published again. Caller
 * holds engine->lock. */
static void forget_neighbours(struct unshard_engine *engine, uint32_t view, uint64_t start,
                              uint64_t end)
{
    const struct extent_map *map = view_map(engine, view);
    while (start < end && start < map->size) {
        struct extent_piece piece = extent_map_at(map, start, end - start);
        uint64_t last = (piece.source_offset + piece.length - 1) / engine->chunk_bytes;
        for (uint64_t i = piece.source_offset / engine->chunk_bytes;
             piece.source != EXTENT_LITERAL && i <= last; i++)
            chunk_forget(engine, piece.source, (uint32_t)i, WANTED_BY_PLAN);
        if (piece.source != EXTENT_LITERAL)
            schedule_offer(engine, piece.source);
        start += piece.length;
    }
}

/* Pages that the file shares with others were taken away with its own. Caller holds engine->lock.
 */
static void republish_seams(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->view_count; i++) {
        uint32_t view = engine->file_views[file->first_view + i];
        struct extent_map_images images =
            extent_map_images_of(view_map(engine, view), number, 0, file->size);
        struct extent_piece image;
        while (extent_map_next_image(&images, &image)) {
            uint64_t end = image.view_offset + image.length;
            forget_neighbours(engine, view, image.view_offset / PAGE_BYTES * PAGE_BYTES,
                              image.view_offset);
            forget_neighbours(engine, view, end, (end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
        }
    }
}

/* Waits for stores, and for readers as a store does. No lock held. */
static void take_pages_away(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    engine->stores_running++; /* what we do to pages is drained as stores are */
    while (file->stores > 0)
        pthread_cond_wait(&engine->stores_done, &engine->lock);
    bool drop = !engine->no_stores;
    pthread_mutex_unlock(&engine->lock);
    if (drop)
        drop_pages(engine, number);
    pthread_mutex_lock(&engine->lock);
    if (--engine->stores_running == 0)
        pthread_cond_broadcast(&engine->stores_done);
    pthread_mutex_unlock(&engine->lock);
}

/* A reader must not wait for what waits for reads: a storer does it. */
static void leave_pages_to_others(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    engine->drops_pending += !file->drop_pending;
    file->drop_pending = true;
    storers_wake(engine);
    pthread_mutex_unlock(&engine->lock);
}

static void end_clearing(struct unshard_engine *engine, uint32_t number)
{
    pthread_mutex_lock(&engine->lock);
    engine->files[number].clearing--;
    pthread_mutex_unlock(&engine->lock);
}

static bool answers_reads(struct unshard_engine *engine)
{
    bool found = false;
    pthread_mutex_lock(&engine->lock);
    for (unsigned i = 0; i < engine->reader_count; i++)
        found = found || pthread_equal(engine->readers[i], pthread_self());
    pthread_mutex_unlock(&engine->lock);
    return found;
}

/* From now on no read or store of the file begins. Whether that is news. Caller holds engine->lock
 * and ends the waiters. */
static bool shut(struct unshard_engine *engine, uint32_t number, const struct unshard_error *error,
                 struct waiter **waiters)
{
    struct file_state *file = &engine->files[number];
    bool already = file->blocked;
    file_note_error(file, error);
    file->mismatch = (struct mismatch){0};
    file->pass_demanded = false;
    cancel_of_list(engine, &file->held, number, waiters);
    cancel_of_list(engine, &engine->demand, number, waiters);
    cancel_of_list(engine, &engine->retries, number, waiters);
    disown_fetches(engine, number, waiters);
    forget_chunks(engine, number);
    file->blocked = true;
    number_set_add(&engine->suspects, number);
    file->clearing++;
    return !already;
}

/* What of a shut file is left in memory. No lock held. */
static void clear_away(struct unshard_engine *engine, uint32_t number)
{
    staging_drop(engine, number, 0, engine->files[number].size);
    if (!answers_reads(engine))
        take_pages_away(engine, number);
    else
        leave_pages_to_others(engine, number);
    end_clearing(engine, number);
}

void file_block(struct unshard_engine *engine, uint32_t number, uint32_t generation,
                const struct unshard_error *error, const struct mismatch *mismatch)
{
    struct file_state *file = &engine->files[number];
    const uint32_t *dependents = &engine->dependents[file->first_dependent];
    struct waiter *waiters = NULL;
    bool news = false;
    pthread_mutex_lock(&engine->lock);
    bool current = generation == file->generation;
    if (current) {
        news = shut(engine, number, error, &waiters);
        if (mismatch != NULL)
            file->mismatch = *mismatch;
        for (size_t i = 0; i < file->dependent_count; i++)
            shut(engine, dependents[i], error, &waiters);
    }
    pthread_mutex_unlock(&engine->lock);
    if (!current)
        return;
    waiters_complete(waiters, NULL, EIO);
    if (news)
        log_failure(engine, number, error, false);
    clear_away(engine, number);
    for (size_t i = 0; i < file->dependent_count; i++)
        clear_away(engine, dependents[i]);
}

bool file_drop_next(struct unshard_engine *engine)
{
    uint32_t number = 0;
    if (engine->drops_pending == 0)
        return false;
    while (!engine->files[number].drop_pending)
        number++;
    struct file_state *file = &engine->files[number];
    file->drop_pending = false;
    engine->drops_pending--;
    file->clearing++;
    pthread_mutex_unlock(&engine->lock);
    take_pages_away(engine, number);
    pthread_mutex_lock(&engine->lock);
    file->clearing--;
    return true;
}

static void count_stale(struct unshard_engine *engine, uint32_t number, bool stale)
{
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->view_count; i++)
        engine->views[engine->file_views[file->first_view + i]].stale += stale ? 1U : -1U;
}

void file_set_stale(struct unshard_engine *engine, uint32_t number, bool stale)
{
    struct file_state *file = &engine->files[number];
    if (file->stale == stale)
        return;
    file->stale = stale;
    count_stale(engine, number, stale);
    for (size_t i = 0; i < file->dependent_count; i++)
        count_stale(engine, engine->dependents[file->first_dependent + i], stale);
}

void file_reset(struct unshard_engine *engine, uint32_t number)
{
    char path[512];
    struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    file->generation++;
    file_set_stale(engine, number, false);
    forget_chunks(engine, number);
    file_set_check(engine, number);
    file->verified = file->blocked = file->has_error = file->failed_at_start = false;
    file->pass_retry_ns = file->pass_attempts = 0;
    file->mismatch = (struct mismatch){0};
    file->episode = (struct failure_episode){0};
    republish_seams(engine, number);
    schedule_offer(engine, number);
    pthread_mutex_unlock(&engine->lock);
    if (engine->checkpoint->files[number].gathered == NULL)
        engine_log(engine, 5, "event=shard-replaced shard=\"%s\"",
                   error_field(path, sizeof path, engine->checkpoint->files[number].path));
    gathered_reset(engine, number);
}

void file_open(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    file->closed = false;
    for (struct fetch *fetch; (fetch = file->held.first) != NULL;) {
        fetch_list_remove(&file->held, fetch);
        fetch_list_append(&engine->demand, fetch);
    }
    schedule_offer(engine, number);
    gathered_source_opened(engine, number);
}

void file_cancel_held(struct unshard_engine *engine, uint32_t number, struct waiter **waiters)
{
    struct file_state *file = &engine->files[number];
    for (struct fetch *held; (held = file->held.first) != NULL;) {
        fetch_list_remove(&file->held, held);
        fetch_cancel(engine, held, waiters);
    }
    for (size_t i = 0; i < file->dependent_count; i++)
        file_cancel_held(engine, engine->dependents[file->first_dependent + i], waiters);
}

uint64_t view_epoch(const struct unshard_engine *engine, uint32_t view, uint64_t offset,
                    uint64_t end)
{
    const struct extent_map *map = view_map(engine, view);
    uint64_t epoch = 0; /* generations only grow: no two sums of the same files are equal */
    while (offset < end && offset < map->size) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        epoch += piece.source != EXTENT_LITERAL ? engine->files[piece.source].generation : 0;
        offset += piece.length;
    }
    return epoch;
}

bool view_is_served(const struct unshard_engine *engine, uint32_t view, uint64_t offset,
                    uint64_t end)
{
    const struct extent_map *map = view_map(engine, view);
    while (offset < end && offset < map->size) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        if (piece.source != EXTENT_LITERAL &&
            (engine->files[piece.source].blocked || engine->files[piece.source].closed))
            return false;
        offset += piece.length;
    }
    return true;
}
