/* SPDX-License-Identifier: MIT
 *
 * What follows when a gate (gate.h) changes its state.
 *
 * Blocking is done in this order: no read or store of the file begins (the gate, under the lock);
 * what is queued for it is ended; what is being read, or was read and waits to be hashed or stored,
 * is an orphan from then on, which no read finds. The rest is a storer's, since it waits for
 * readers: stores that run are waited for, and then its pages are taken out of the page cache. The
 * file does not begin anew before they are gone.
 *
 * A gathered file is blocked as long as one of its shards is, and begins anew with the last of
 * them.
 *
 * Of a page that several files share, as much is kept in memory as is there. Its store is one of
 * each of these files, from before its bytes are put together; so nothing that is held is of a
 * content before. A read copies what is held without the engine's lock: whether a file has begun
 * anew meanwhile tells how often that has happened (epochs_begun).
 */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

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
        chunk->seen = chunk->checked = chunk->doubted = false;
        chunk->attempts = 0;
        outliving_mark(file, i);
    }
    staging_forget(&engine->staging, number);
    file->chunks_seen = file->chunks_checked = 0;
    file->bytes_seen = 0;
    file->rests = 0;
    file->failing = false;
    if (file->trouble != NULL)
        file->trouble->mismatch = (struct mismatch){0};
    wanted_wake(&file->wanted);
}

/* Takes the file's pages, and those that it shares with others, out of memory and (from_readers)
 * the page cache. No lock held. */
static void drop_pages(struct unshard_engine *engine, uint32_t number, bool from_readers)
{
    const struct file_state *file = &engine->files[number];
    uint32_t view;
    for (uint32_t i = 0; file_view(engine, number, i, &view); i++) {
        const struct extent_map *map = view_map(engine, view);
        struct extent_map_images images = extent_map_images_of(map, number, 0, file->size);
        struct extent_piece image;
        while (extent_map_next_image(&images, &image)) {
            uint64_t first = image.view_offset / PAGE_BYTES, end = image.view_offset + image.length;
            held_pages_forget_range(&engine->held, view, first, (end - 1) / PAGE_BYTES);
            if (from_readers && engine->publisher.drop != NULL)
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
    for (uint32_t i = 0; i < file->views.count; i++) { /* the caller holds engine->lock */
        uint32_t view = file->views.numbers[i];
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
    engine->pages.stores_running++; /* what we do to pages is drained as stores are */
    while (file->stores > 0)
        pthread_cond_wait(&engine->pages.stores_done, &engine->lock);
    bool from_readers = !engine->pages.no_stores;
    pthread_mutex_unlock(&engine->lock);
    drop_pages(engine, number, from_readers);
    pthread_mutex_lock(&engine->lock);
    if (--engine->pages.stores_running == 0)
        pthread_cond_broadcast(&engine->pages.stores_done);
    pthread_mutex_unlock(&engine->lock);
}

/* From now on no read or store of the file begins. Whether that is news. Caller holds engine->lock
 * and ends the waiters. */
static bool shut(struct unshard_engine *engine, uint32_t number, enum gate_reason reason,
                 const struct unshard_error *error, const struct mismatch *mismatch,
                 struct waiter **waiters)
{
    struct file_state *file = &engine->files[number];
    if (!gate_block(&file->gate, reason, error, mismatch))
        return false;
    file->pass_demanded = false;
    cancel_of_list(engine, &file->held, number, waiters);
    cancel_of_list(engine, &engine->queues.demand, number, waiters);
    cancel_of_list(engine, &engine->queues.retries, number, waiters);
    disown_fetches(engine, number, waiters);
    forget_chunks(engine, number);
    buffers_forget(&engine->buffers, number);
    number_set_add(&engine->agenda.suspects, number);
    engine->pages.drops_due++;
    if (reason == GATE_MISMATCH || reason == GATE_HEADER)
        outliving_bad(file, error);
    return true;
}

void file_block(struct unshard_engine *engine, const struct file_epoch *epoch,
                enum gate_reason reason, const struct unshard_error *error,
                const struct mismatch *mismatch)
{
    uint32_t number = epoch->file;
    struct file_state *file = &engine->files[number];
    struct unshard_error stamped = *error;
    struct waiter *waiters = NULL;
    bool news = false;
    error_stamp(&stamped);
    pthread_mutex_lock(&engine->lock);
    if (epoch == file->epoch) {
        news = shut(engine, number, reason, &stamped, mismatch, &waiters);
        for (size_t i = 0; i < file->dependents.count; i++)
            shut(engine, file->dependents.numbers[i], GATE_SHARD, gate_error(&file->gate), NULL,
                 &waiters);
        storers_wake(engine);
    }
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(waiters, NULL, EIO);
    if (news)
        log_failure(engine, number, error, false);
}

static void block_at_start(struct file_state *file, enum gate_reason reason,
                           const struct unshard_error *error)
{
    if (!gate_block(&file->gate, reason, error, NULL))
        return;
    gate_take_pages(&file->gate); /* nobody has any */
    gate_pages_gone(&file->gate);
}

void file_block_at_start(struct unshard_engine *engine, uint32_t number,
                         const struct unshard_error *error)
{
    struct file_state *file = &engine->files[number];
    block_at_start(file, GATE_IMPOSSIBLE, error);
    number_set_add(&engine->agenda.suspects, number);
    for (size_t i = 0; i < file->dependents.count; i++)
        block_at_start(&engine->files[file->dependents.numbers[i]], GATE_SHARD, error);
}

void file_block_dependent_at_start(struct unshard_engine *engine, uint32_t number,
                                   const struct unshard_error *error)
{
    block_at_start(&engine->files[number], GATE_SHARD, error);
}

bool file_drop_next(struct unshard_engine *engine)
{
    uint32_t number = 0;
    if (engine->pages.drops_due == 0)
        return false;
    while (!engine->files[number].used || !gate_pages_are_due(&engine->files[number].gate))
        number++;
    struct file_state *file = &engine->files[number];
    gate_take_pages(&file->gate);
    engine->pages.drops_due--;
    pthread_mutex_unlock(&engine->lock);
    take_pages_away(engine, number);
    pthread_mutex_lock(&engine->lock);
    gate_pages_gone(&file->gate);
    pthread_cond_broadcast(&engine->pages.stores_done);
    return true;
}

/* Takes `next` over. Caller holds engine->lock. */
static void begin_anew(struct unshard_engine *engine, struct file_epoch *next)
{
    uint32_t number = next->file;
    struct file_state *file = &engine->files[number];
    epoch_release(file->epoch);
    file->epoch = next;
    engine->epochs_begun++;
    forget_chunks(engine, number);
    outliving_renew(engine, number);
    file->pass_retry_ns = 0;
    file->episode = (struct failure_episode){0};
    gate_renew(&file->gate, file_must_wait(engine, number));
    pass_may_be_due(engine, number);
    republish_seams(engine, number);
    schedule_offer(engine, number);
}

/* The gathered file begins anew with one of its shards, unless another one keeps it blocked. Caller
 * holds engine->lock. */
static void begin_dependent_anew(struct unshard_engine *engine, struct file_epoch *next)
{
    const struct gathered *gathered = engine->checkpoint->files[next->file].gathered;
    const struct unshard_error *error = gathered_error(engine, gathered);
    if (error == NULL) {
        begin_anew(engine, next);
        return;
    }
    gate_block(&engine->files[next->file].gate, GATE_SHARD, error, NULL);
    epoch_release(next);
}

/* Those of the file, and of the gathered files that depend on it, so many in all; NULL when memory
 * is short. The caller holds engine->attaching: no others come to depend on it. */
static struct file_epoch **make_epochs(const struct unshard_engine *engine, uint32_t number,
                                       size_t count)
{
    const struct file_state *file = &engine->files[number];
    size_t made = 0;
    struct file_epoch **epochs = calloc(count, sizeof(struct file_epoch *));
    if (epochs == NULL)
        return NULL;
    for (; made < count; made++) {
        uint32_t which = made == 0 ? number : file->dependents.numbers[made - 1];
        if ((epochs[made] = file_epoch_make(engine, which)) == NULL)
            break;
    }
    if (made == count)
        return epochs;
    while (made > 0)
        epoch_release(epochs[--made]);
    free(epochs);
    return NULL;
}

static int begin_all_anew(struct unshard_engine *engine, uint32_t number)
{
    size_t dependents = engine->files[number].dependents.count;
    struct file_epoch **next = make_epochs(engine, number, 1 + dependents);
    if (next == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&engine->lock);
    begin_anew(engine, next[0]);
    for (size_t i = 0; i < dependents; i++)
        begin_dependent_anew(engine, next[1 + i]);
    pthread_mutex_unlock(&engine->lock);
    free(next);
    return 0;
}

int file_reset(struct unshard_engine *engine, uint32_t number)
{
    char path[512];
    pthread_mutex_lock(&engine->attaching);
    int result = begin_all_anew(engine, number);
    pthread_mutex_unlock(&engine->attaching);
    if (result == 0)
        engine_log(engine, 5, "event=shard-replaced shard=\"%s\"",
                   error_field(path, sizeof path, engine->checkpoint->files[number].path));
    return result;
}

const struct unshard_error *file_error(const struct unshard_engine *engine, uint32_t number)
{
    static const struct unshard_error forgotten = {.code = "no-memory",
                                                   .errno_value = ENOMEM,
                                                   .offset = UNSHARD_NO_OFFSET,
                                                   .message = "out of memory"};
    const struct file_state *file = &engine->files[number];
    if (gate_is_blocked(&file->gate))
        return gate_error(&file->gate);
    if (file->failing)
        return file->trouble != NULL ? &file->trouble->error : &forgotten;
    return file_failed_at_start(engine, number) ? engine->checkpoint->files[number].error : NULL;
}

const struct mismatch *file_mismatch(const struct file_state *file)
{
    static const struct mismatch none = {.known = false};
    if (gate_is_blocked(&file->gate))
        return gate_mismatch(&file->gate);
    return file->trouble != NULL ? &file->trouble->mismatch : &none;
}

void file_open(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    gate_open(&file->gate);
    for (struct fetch *fetch; (fetch = file->held.first) != NULL;) {
        fetch_list_remove(&file->held, fetch);
        fetch_list_append(&engine->queues.demand, fetch);
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
    for (size_t i = 0; i < file->dependents.count; i++)
        file_cancel_held(engine, file->dependents.numbers[i], waiters);
}

bool view_is_served(const struct unshard_engine *engine, uint32_t view, uint64_t offset,
                    uint64_t end)
{
    const struct extent_map *map = view_map(engine, view);
    while (offset < end && offset < map->size) {
        struct extent_piece piece = extent_map_at(map, offset, end - offset);
        if (piece.source != EXTENT_LITERAL && !gate_is_open(&engine->files[piece.source].gate))
            return false;
        offset += piece.length;
    }
    return true;
}
