/* SPDX-License-Identifier: MIT */
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An extent costs some 40 bytes for the life of the mount, and a seam within a page. */
#define FEW_RUNS 64U
#define SHORT_RUN 4096U
#define LONG_RUN (UINT64_C(1) << 20)
#define MAX_RUNS (1U << 20)

/* Joins dimensions as long as two of them are one in source and target. `dimensions` are those with
 * more than one element. The number that is left. */
static uint32_t join_dimensions(struct gather_dimension *dimensions, uint32_t rank)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rank; i++) {
        struct gather_dimension *outer = &dimensions[kept], *inner = &dimensions[i];
        if (kept > 0) {
            outer--;
            if (outer->source_stride == inner->source_stride * inner->count &&
                outer->target_stride == inner->target_stride * inner->count) {
                outer->count *= inner->count;
                outer->source_stride = inner->source_stride;
                outer->target_stride = inner->target_stride;
                continue;
            }
        }
        dimensions[kept++] = *inner;
    }
    return kept;
}

int gather_box_make(const struct gather_grid *grid, struct arena *arena, struct gather_box *out)
{
    struct gather_dimension dimensions[GATHER_MAX_RANK];
    uint32_t rank = 0;
    uint64_t run = grid->element_size;
    for (uint32_t i = 0; i < grid->rank; i++)
        if (grid->shape[i] > 1)
            dimensions[rank++] = (struct gather_dimension){grid->shape[i], grid->source_strides[i],
                                                           grid->target_strides[i]};
    rank = join_dimensions(dimensions, rank);
    if (rank > 0 && dimensions[rank - 1].source_stride == run &&
        dimensions[rank - 1].target_stride == run)
        run *= dimensions[--rank].count;
    struct gather_dimension *kept = arena_alloc_array(arena, rank, sizeof *kept);
    if (kept == NULL)
        return -ENOMEM;
    memcpy(kept, dimensions, rank * sizeof *kept);
    *out = (struct gather_box){.file = grid->file,
                               .rank = rank,
                               .source = grid->source,
                               .target = grid->target,
                               .run = run,
                               .dimensions = kept};
    return 0;
}

uint64_t gather_box_span(const struct gather_box *box)
{
    uint64_t span = box->run;
    for (uint32_t i = 0; i < box->rank; i++)
        span += (box->dimensions[i].count - 1) * box->dimensions[i].source_stride;
    return span;
}

uint64_t gather_box_run_count(const struct gather_box *box)
{
    uint64_t count = 1;
    for (uint32_t i = 0; i < box->rank; i++)
        count *= box->dimensions[i].count;
    return count;
}

static int compare_runs(const void *left, const void *right)
{
    const struct gather_run *a = left, *b = right;
    return (a->target > b->target) - (a->target < b->target);
}

static size_t list_runs(const struct gather_box *box, struct gather_run *out)
{
    uint64_t count = gather_box_run_count(box);
    for (uint64_t number = 0; number < count; number++) {
        uint64_t rest = number, source = box->source, target = box->target;
        for (uint32_t i = box->rank; i-- > 0;) {
            const struct gather_dimension *dimension = &box->dimensions[i];
            source += rest % dimension->count * dimension->source_stride;
            target += rest % dimension->count * dimension->target_stride;
            rest /= dimension->count;
        }
        out[number] = (struct gather_run){target, source, box->run, box->file};
    }
    return count;
}

bool gather_runs(const struct gather *gather, struct gather_run **runs, size_t *count)
{
    uint64_t total = 0;
    *runs = NULL;
    *count = 0;
    for (uint32_t i = 0; i < gather->box_count; i++) {
        total += gather_box_run_count(&gather->boxes[i]);
        if (total > MAX_RUNS)
            return false;
    }
    uint64_t average = total > 0 ? gather->length / total : 0;
    if (average < (total <= FEW_RUNS ? SHORT_RUN : LONG_RUN))
        return false;
    *runs = calloc(total, sizeof **runs);
    for (uint32_t i = 0; i < gather->box_count && *runs != NULL; i++)
        *count += list_runs(&gather->boxes[i], *runs + *count);
    if (*runs != NULL)
        qsort(*runs, *count, sizeof **runs, compare_runs);
    return true;
}

bool gather_same_files(const struct gather *a, const struct gather *b)
{
    if (a->box_count != b->box_count)
        return false;
    for (uint32_t i = 0; i < a->box_count; i++)
        if (a->boxes[i].file != b->boxes[i].file)
            return false;
    return true;
}

static bool copy_box(const struct gather_box *box, struct arena *arena, struct gather_box *out)
{
    struct gather_dimension *dimensions = arena_alloc_array(arena, box->rank, sizeof *dimensions);
    if (dimensions == NULL)
        return false;
    memcpy(dimensions, box->dimensions, box->rank * sizeof *dimensions);
    *out = *box;
    out->dimensions = dimensions;
    return true;
}

static const struct gather *copy_gather(const struct gather *gather, struct arena *arena)
{
    struct gather *copy = arena_alloc(arena, sizeof *copy);
    struct gather_box *boxes = arena_alloc_array(arena, gather->box_count, sizeof *boxes);
    if (copy == NULL || boxes == NULL)
        return NULL;
    for (uint32_t i = 0; i < gather->box_count; i++)
        if (!copy_box(&gather->boxes[i], arena, &boxes[i]))
            return NULL;
    *copy =
        (struct gather){.boxes = boxes, .box_count = gather->box_count, .length = gather->length};
    return copy;
}

static int compare_sources(const void *left, const void *right)
{
    const struct gathered_source *a = left, *b = right;
    return (a->file > b->file) - (a->file < b->file);
}

/* The files behind all boxes, each once. */
static bool list_sources(struct gathered *gathered, struct arena *arena)
{
    size_t count = 0, kept = 0;
    for (uint32_t i = 0; i < gathered->count; i++)
        count += gathered->pieces[i].gather->box_count;
    struct gathered_source *all = calloc(count + 1, sizeof *all);
    if (all == NULL)
        return false;
    count = 0;
    for (uint32_t i = 0; i < gathered->count; i++)
        for (uint32_t b = 0; b < gathered->pieces[i].gather->box_count; b++) {
            const struct gather_box *box = &gathered->pieces[i].gather->boxes[b];
            all[count++] =
                (struct gathered_source){box->file, box->run * gather_box_run_count(box)};
        }
    qsort(all, count, sizeof *all, compare_sources);
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && all[kept - 1].file == all[i].file)
            all[kept - 1].bytes += all[i].bytes;
        else
            all[kept++] = all[i];
    }
    gathered->sources = arena_alloc_array(arena, kept, sizeof *all);
    gathered->source_count = (uint32_t)kept;
    if (gathered->sources != NULL && kept > 0)
        memcpy(gathered->sources, all, kept * sizeof *all);
    free(all);
    return gathered->sources != NULL;
}

const struct gathered *gathered_copy(const struct gathered *gathered, struct arena *arena)
{
    struct gathered *copy = arena_alloc(arena, sizeof *copy);
    struct gathered_piece *pieces = arena_alloc_array(arena, gathered->count, sizeof *pieces);
    if (copy == NULL || pieces == NULL)
        return NULL;
    for (uint32_t i = 0; i < gathered->count; i++) {
        const struct gathered_piece *piece = &gathered->pieces[i];
        pieces[i].gather = copy_gather(piece->gather, arena);
        pieces[i].offset = piece->offset;
        pieces[i].name = arena_copy_string(arena, piece->name, strlen(piece->name));
        if (pieces[i].gather == NULL || pieces[i].name == NULL)
            return NULL;
    }
    *copy = (struct gathered){.pieces = pieces, .count = gathered->count, .size = gathered->size};
    return list_sources(copy, arena) ? copy : NULL;
}
