/* SPDX-License-Identifier: MIT
 *
 * Chunks of which no view of a component shows a byte: headers that have been replaced by one of
 * ours, the directory of a zip archive, storages of which a tensor uses a part. Hardly anybody will
 * ask for them (who opens the file itself by its name, beside the component), so nothing is read
 * ahead for that and no state waits for it; but the views were planned from some of them.
 */
#include "engine/engine_internal.h"

#include "base/error.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>

static bool mark_shown(struct unshard_engine *engine, const struct extent_map *map, size_t number)
{
    const struct extent *extent = &map->extents[number];
    uint64_t end = number + 1 < map->count ? extent[1].view_offset : map->size;
    uint64_t last = extent->source_offset + (end - extent->view_offset) - 1;
    return chunk_runs_add(&engine->files[extent->source].shown,
                          (uint32_t)(extent->source_offset / engine->chunk_bytes),
                          (uint32_t)(last / engine->chunk_bytes));
}

static bool mark_all_shown(struct unshard_engine *engine, const struct extent_map *map)
{
    bool marked = true;
    for (size_t e = 0; e < map->count && marked; e++)
        marked = map->extents[e].source == EXTENT_LITERAL ||
                 engine->files[map->extents[e].source].used || mark_shown(engine, map, e);
    return marked;
}

static bool mark_gathered(struct unshard_engine *engine, const struct gather *gather)
{
    bool marked = true;
    for (uint32_t i = 0; i < gather->box_count && marked; i++) {
        const struct gather_box *box = &gather->boxes[i];
        struct file_state *file = &engine->files[box->file];
        if (file->used)
            continue;
        uint64_t last = (box->source + gather_box_span(box) - 1) / engine->chunk_bytes;
        if (last >= file->chunk_count) /* what is missing of a truncated file */
            last = file->chunk_count - 1U;
        if (box->source / engine->chunk_bytes <= last && file->chunk_count > 0)
            marked = chunk_runs_add(&file->gathered, (uint32_t)(box->source / engine->chunk_bytes),
                                    (uint32_t)last);
    }
    return marked;
}

static void count_unshown(struct unshard_engine *engine, struct file_state *file)
{
    uint64_t shown = (uint64_t)chunk_runs_total(&file->shown) * engine->chunk_bytes;
    uint32_t last = file->chunk_count - 1U;
    if (file->chunk_count > 0 && chunk_runs_have(&file->shown, last))
        shown -= (uint64_t)file->chunk_count * engine->chunk_bytes - file->size;
    file->chunks_unshown = file->chunk_count - chunk_runs_total(&file->shown);
    file->unshown_bytes = file->size - shown;
}

/* Whether it is not listed, or shows a file as it is beside the component that the file is a part
 * of. */
static bool is_beside(const struct unshard_checkpoint *checkpoint, uint32_t number)
{
    const struct view *view = &checkpoint->views[number];
    return view->unlisted ||
           (view->component == NO_COMPONENT && view->map.count == 1 &&
            view->map.extents[0].source != EXTENT_LITERAL &&
            checkpoint->files[view->map.extents[0].source].component != NO_COMPONENT);
}

/* What was there before shows what it has shown: its bytes that are shown are a part of what it is
 * known by (tree/identity.h). */
int unread_mark(struct unshard_engine *engine, const struct adoption *new)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    bool marked = true;
    for (uint32_t v = 0; v < new->views.count &&marked; v++)
        marked = is_beside(checkpoint, new->views.numbers[v]) ||
                 mark_all_shown(engine, &checkpoint->views[new->views.numbers[v]].map);
    for (uint32_t i = 0; i < new->files.count &&marked; i++) {
        const struct gathered *gathered = checkpoint->files[new->files.numbers[i]].gathered;
        for (uint32_t k = 0; gathered != NULL && k < gathered->count && marked; k++)
            marked = mark_gathered(engine, gathered->pieces[k].gather);
    }
    for (uint32_t i = 0; i < new->files.count; i++) {
        struct file_state *file = &engine->files[new->files.numbers[i]];
        chunk_runs_settle(&file->shown);
        chunk_runs_settle(&file->gathered);
        count_unshown(engine, file);
    }
    return marked ? 0 : -ENOMEM;
}

/* Reads a chunk and compares it with its digests and with what discovery read of it. */
static int check_one(struct unshard_engine *engine, uint32_t number, uint64_t start, char *buffer,
                     const struct file_check *check, struct unshard_error *error)
{
    uint64_t size = source_identity(engine->source, number).size;
    uint64_t most = check->chunks.chunk_bytes;
    uint64_t length =
        start < size && size - start < engine->chunk_bytes ? size - start : engine->chunk_bytes;
    bool cached;
    int result = source_read(engine->source, number, start, buffer, length, &cached, error);
    for (uint64_t done = 0; result == 0 && done < length; done += most) {
        uint64_t part = length - done < most ? length - done : most;
        result = check_bytes(engine, number, check, start + done, buffer + done, part, error);
    }
    return result == 0 ? check_header(engine, number, start, buffer, length, error) : result;
}

/* Several threads may do this at once, which is as good as one of them waiting for the other. */
int unread_check(struct unshard_engine *engine, uint32_t number, const struct file_check *check,
                 struct unshard_error *error)
{
    const struct source_file *source = &engine->checkpoint->files[number];
    struct file_state *file = &engine->files[number];
    uint64_t last = UINT64_MAX;
    char *buffer = NULL;
    int result = 0;
    if (atomic_load_explicit(&file->unread_checked, memory_order_acquire))
        return 0;
    for (uint32_t i = 0; i < source->header_piece_count && result == 0; i++) {
        uint64_t index = source->header_pieces[i].offset / engine->chunk_bytes;
        if (index == last || index >= file->chunk_count ||
            !chunk_is_unshown(file, (uint32_t)index) ||
            chunk_runs_have(&file->gathered, (uint32_t)index))
            continue;
        last = index;
        if (buffer == NULL)
            buffer = aligned_alloc(DIRECT_ALIGNMENT, engine->chunk_bytes);
        if (buffer == NULL) {
            error_no_memory(error);
            return -ENOMEM;
        }
        result = check_one(engine, number, index * engine->chunk_bytes, buffer, check, error);
    }
    free(buffer);
    if (result == 0)
        atomic_store_explicit(&file->unread_checked, true, memory_order_release);
    return result;
}
