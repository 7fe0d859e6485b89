/* SPDX-License-Identifier: MIT
 *
 * Closing a file to readers, and beginning anew with it.
 *
 * Blocking is done in this order: no read or store of the file begins (blocked, under the lock);
 * what is queued for it is ended; stores that run are waited for; then its pages are taken out of
 * the page cache. What is being read meanwhile is void by its generation or by `blocked`.
 */
#include "prefetch/engine_internal.h"

#include <errno.h>
#include <time.h>

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

/* Every chunk that was published is not any more, and every copy is worth nothing. Caller holds
 * engine->lock. */
static void forget_chunks(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->chunk_count; i++) {
        struct chunk *chunk = &file->chunks[i];
        chunk_forget(engine, number, i);
        if (chunk->state == CHUNK_FAILED) {
            chunk->state = CHUNK_ABSENT;
            file->chunks_failed--;
        }
        if (chunk->staged) {
            uint64_t rest = file->size - (uint64_t)i * engine->chunk_bytes;
            engine->staged_bytes -= rest < engine->chunk_bytes ? rest : engine->chunk_bytes;
        }
        chunk->staged = false;
        chunk->seen = chunk->checked = false;
        chunk->attempts = 0;
    }
    file->chunks_seen = file->chunks_checked = 0;
    file->bytes_seen = 0;
}

/* Takes the file's pages, and those that it shares with others, from readers. No lock held. */
static void drop_pages(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    for (uint32_t i = 0; i < file->view_count; i++) {
        uint32_t view = engine->file_views[file->first_view + i];
        const struct extent_map *map = &engine->checkpoint->views[view].map;
        struct extent_map_images images = extent_map_images_of(map, number, 0, file->size);
        struct extent_piece image;
        held_pages_forget(&engine->held, view);
        while (engine->publisher.drop != NULL && extent_map_next_image(&images, &image)) {
            uint64_t first = image.view_offset / PAGE_BYTES * PAGE_BYTES;
            uint64_t end = image.view_offset + image.length;
            engine->publisher.drop(engine->publisher.context, view, first, end - first);
        }
    }
}

void file_block(struct unshard_engine *engine, uint32_t number, const struct unshard_error *error,
                const struct mismatch *mismatch)
{
    struct file_state *file = &engine->files[number];
    struct waiter *waiters = NULL;
    pthread_mutex_lock(&engine->lock);
    bool already = file->blocked;
    file->blocked = file->has_error = true;
    file->error = *error;
    if (file->error.time == 0)
        file->error.time = (int64_t)time(NULL);
    file->mismatch = mismatch != NULL ? *mismatch : (struct mismatch){0};
    file->pass_demanded = false;
    cancel_of_list(engine, &file->held, number, &waiters);
    cancel_of_list(engine, &engine->demand, number, &waiters);
    cancel_of_list(engine, &engine->retries, number, &waiters);
    forget_chunks(engine, number);
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(waiters, NULL, EIO);
    staging_drop(engine, number, 0, file->size);
    if (!already)
        log_failure(engine, number, error, false);
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

void file_reset(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    file->generation++;
    forget_chunks(engine, number);
    file_set_check(engine, number);
    file->verified = file->blocked = file->has_error = file->failed_at_start = false;
    file->mismatch = (struct mismatch){0};
    schedule_restart(engine);
    pthread_mutex_unlock(&engine->lock);
    engine_log(engine, 5, "event=shard-replaced shard=\"%s\"",
               engine->checkpoint->files[number].path);
}
