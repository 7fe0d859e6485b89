/* SPDX-License-Identifier: MIT
 *
 * Nothing but its length ties the views of a checkpoint to a file that holds no tensors of a
 * component, or whose tensors nobody has looked up to make a view (source_file.as_is): when it has
 * been edited or replaced, its view follows.
 */
#include "engine/engine_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The only view of a file, or NULL. */
static struct view_state *only_view(const struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    return file->views.count == 1 ? &engine->views[file->views.numbers[0]] : NULL;
}

bool plain_file(const struct unshard_engine *engine, uint32_t number)
{
    const struct source_file *file = &engine->checkpoint->files[number];
    const struct view_state *view = only_view(engine, number);
    if ((file->component != NO_COMPONENT && !file->as_is) || file->gathered != NULL || view == NULL)
        return false;
    const struct extent_map *map = view_map(engine, engine->files[number].views.numbers[0]);
    return map->count == 0 ||
           (map->count == 1 && map->extents[0].source == number &&
            map->extents[0].source_offset == 0 && map->size == engine->files[number].size);
}

bool plain_file_is_quiet(const struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    bool quiet =
        file->pass == NULL && file->stores == 0 && file->orphans == 0 && gate_is_clear(&file->gate);
    for (uint32_t i = chunk_next_touched(file, 0); i < file->chunk_count && quiet;
         i = chunk_next_touched(file, i + 1))
        quiet = file->chunks[i].fetch == NULL;
    return quiet;
}

/* What a file of another length needs; empty for one of the same length. */
struct replacement {
    struct plain_map *plain;
    struct file_state chunks; /* nothing but these */
    uint64_t size;
};

static void replacement_free(struct replacement *new)
{
    if (new->plain != NULL)
        extent_map_free(&new->plain->map);
    free(new->plain);
    file_chunks_free(&new->chunks);
}

static int replacement_make(struct unshard_engine *engine, uint32_t number, uint64_t size,
                            struct replacement *new)
{
    struct extent_map_builder builder = {0};
    *new = (struct replacement){.size = size};
    if (size == engine->files[number].size)
        return 0;
    if (size > CHECKPOINT_MAX_FILE_BYTES)
        return -EFBIG;
    new->plain = calloc(1, sizeof *new->plain);
    int result = new->plain == NULL ? -ENOMEM : file_chunks_make(engine, &new->chunks, size);
    uint32_t count = new->chunks.chunk_count;
    if (result == 0 && count > 0 && !chunk_runs_add(&new->chunks.shown, 0, count - 1))
        result = -ENOMEM;
    if (result != 0)
        return result;
    result = extent_map_append_source(&builder, number, 0, size);
    if (result == 0)
        result = extent_map_finish(&builder, &new->plain->map);
    else
        extent_map_builder_free(&builder);
    return result;
}

/* Puts the new parts in place; *new has the old ones then. Caller holds engine->lock. */
static void take_replacement(struct file_state *file, struct view_state *view,
                             struct replacement *new)
{
    struct file_state old = {.chunks = file->chunks,
                             .digests = file->digests,
                             .outlives = file->outlives,
                             .keep = file->keep,
                             .touched = file->touched,
                             .wanted = file->wanted,
                             .shown = file->shown,
                             .gathered = file->gathered,
                             .chunk_count = file->chunk_count};
    file->chunks = new->chunks.chunks;
    file->digests = new->chunks.digests;
    file->outlives = NULL; /* of what replaces it nothing is kept: it is small */
    file->touched = new->chunks.touched;
    file->wanted = new->chunks.wanted;
    file->shown = new->chunks.shown;
    file->gathered = new->chunks.gathered;
    file->chunk_count = new->chunks.chunk_count;
    file->size = new->size;
    new->plain->older = view->plain;
    view->plain = new->plain;
    atomic_store_explicit(&view->map, &new->plain->map, memory_order_release);
    *new = (struct replacement){.chunks = old};
}

/* The pages, the size and the time that the kernel knows are those of the old file. */
static void tell_readers(struct unshard_engine *engine, uint32_t view)
{
    pthread_mutex_lock(&engine->lock);
    bool tell = !engine->pages.no_stores && engine->publisher.drop != NULL;
    engine->pages.stores_running++; /* drained as stores are */
    pthread_mutex_unlock(&engine->lock);
    held_pages_forget(&engine->held, view);
    if (tell)
        engine->publisher.drop(engine->publisher.context, view, 0, 0);
    pthread_mutex_lock(&engine->lock);
    if (--engine->pages.stores_running == 0)
        pthread_cond_broadcast(&engine->pages.stores_done);
    pthread_mutex_unlock(&engine->lock);
}

int plain_file_replace(struct unshard_engine *engine, uint32_t number)
{
    struct source_identity identity = source_identity(engine->source, number);
    struct file_state *file = &engine->files[number];
    uint32_t view;
    if (!file_view(engine, number, 0, &view))
        return -ENOENT;
    struct view_state *state = &engine->views[view];
    struct replacement new;
    int result = replacement_make(engine, number, identity.size, &new);
    pthread_mutex_lock(&engine->lock);
    if (result == 0 && new.plain != NULL)
        take_replacement(file, state, &new);
    if (result == 0) {
        state->replaced = true;
        state->mtime_ns = identity.mtime_ns;
    }
    pthread_mutex_unlock(&engine->lock);
    replacement_free(&new);
    if (result != 0)
        return result;
    /* In this order: with the old length in mind, a reader would take a part of the new file for
     * all of it. Until then it gets errors. */
    tell_readers(engine, view);
    return file_reset(engine, number);
}

void plain_maps_free(struct view_state *view)
{
    for (struct plain_map *plain = view->plain, *older; plain != NULL; plain = older) {
        older = plain->older;
        extent_map_free(&plain->map);
        free(plain);
    }
    view->plain = NULL;
}
