/* SPDX-License-Identifier: MIT
 *
 * The part of a box that goes to the wanted range is cut into whole boxes. Each is then walked in
 * the order of the source, whatever that means for the target, so that the source is read once and
 * forwards. Runs with small gaps between them are read together; with large gaps (a transposed
 * matrix, of which a range needs a little of every row) each is read by itself, out of the page
 * cache that was told about the range beforehand: other ranges will want the bytes in between. */
#include "store/gather_read.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that nobody wants are read up to this many in a row. */
#define SMALL_GAP 8192U

struct gather_job {
    const struct gather_source *source;
    struct unshard_error *error;
    char *buffer;
    uint64_t shift;      /* byte t of the tensor goes to buffer[t + shift], modulo 2^64 */
    uint64_t start, end; /* wanted of the tensor */
    uint32_t file;
    char *window;
    uint64_t window_offset, window_length; /* of the file; length 0: empty */
    uint64_t group_end;                    /* up to here the source may be read in one go */
    bool sparse;
};

static char *place_of(const struct gather_job *job, uint64_t target)
{
    return job->buffer + (size_t)(target + job->shift);
}

/* ---- the window --------------------------------------------------------------------------------
 */

/* Has the bytes from `offset` on in the window, as many as there are up to `length` (not 0) and
 * the size of the window. */
static int load(struct gather_job *job, uint64_t offset, uint64_t length)
{
    if (offset >= job->window_offset && offset - job->window_offset < job->window_length &&
        (length <= job->window_length - (offset - job->window_offset) ||
         job->window_offset + job->window_length >= job->group_end))
        return 0;
    uint64_t begin = job->sparse ? offset : offset / GATHER_ALIGNMENT * GATHER_ALIGNMENT;
    uint64_t end = offset + length > job->group_end ? offset + length : job->group_end;
    uint64_t size = job->source->size(job->source->context, job->file);
    if (!job->sparse) { /* whole pages, for direct I/O */
        end = (end + GATHER_ALIGNMENT - 1) / GATHER_ALIGNMENT * GATHER_ALIGNMENT;
        if (end > size && offset + length <= size)
            end = size;
    }
    if (end - begin > GATHER_WINDOW_BYTES)
        end = begin + GATHER_WINDOW_BYTES;
    job->window_length = 0;
    int result = job->source->read(job->source->context, job->file, begin, job->window, end - begin,
                                   job->sparse, job->error);
    if (result != 0)
        return result;
    job->window_offset = begin;
    job->window_length = end - begin;
    return 0;
}

static int copy_bytes(struct gather_job *job, uint64_t source, uint64_t target, uint64_t length)
{
    while (length > 0) {
        int result = load(job, source, length);
        if (result != 0)
            return result;
        uint64_t skip = source - job->window_offset, piece = job->window_length - skip;
        if (piece > length)
            piece = length;
        memcpy(place_of(job, target), job->window + skip, piece);
        source += piece;
        target += piece;
        length -= piece;
    }
    return 0;
}

/* Elements of a size that the compiler can copy with one instruction. */
#define COPY_LINE(type)                        \
    for (uint64_t i = 0; i < line->count; i++) \
    memcpy(to + i * line->target_stride, from + i * line->source_stride, sizeof(type))

/* count runs, one every stride. */
static int copy_line(struct gather_job *job, const struct gather_dimension *line, uint64_t run,
                     uint64_t source, uint64_t target)
{
    uint64_t span = (line->count - 1) * line->source_stride + run;
    int result = load(job, source, span);
    if (result != 0)
        return result;
    if (span > job->window_length - (source - job->window_offset)) {
        for (uint64_t i = 0; i < line->count && result == 0; i++)
            result = copy_bytes(job, source + i * line->source_stride,
                                target + i * line->target_stride, run);
        return result;
    }
    const char *from = job->window + (source - job->window_offset);
    char *to = place_of(job, target);
    switch (run) {
    case 1:
        COPY_LINE(uint8_t);
        break;
    case 2:
        COPY_LINE(uint16_t);
        break;
    case 4:
        COPY_LINE(uint32_t);
        break;
    case 8:
        COPY_LINE(uint64_t);
        break;
    default:
        for (uint64_t i = 0; i < line->count; i++)
            memcpy(to + i * line->target_stride, from + i * line->source_stride, run);
    }
    return 0;
}

/* ---- whole boxes -------------------------------------------------------------------------------
 */

static int compare_source_strides(const void *left, const void *right)
{
    const struct gather_dimension *a = left, *b = right;
    return (a->source_stride < b->source_stride) - (a->source_stride > b->source_stride);
}

/* How many of the last dimensions can be read in one go, as the gaps between their runs are small,
 * and the bytes from the first to the last of these runs. */
static uint32_t dense_dimensions(const struct gather_dimension *dimensions, uint32_t rank,
                                 uint64_t run, uint64_t *span)
{
    uint32_t dense = 0;
    *span = run;
    while (dense < rank) {
        const struct gather_dimension *next = &dimensions[rank - 1 - dense];
        if (next->source_stride > *span && next->source_stride - *span > SMALL_GAP)
            break;
        *span += (next->count - 1) * next->source_stride;
        dense++;
    }
    return dense;
}

/* Dimensions sorted by source stride, the smallest last. */
struct gather_walk {
    struct gather_dimension dimensions[GATHER_MAX_RANK];
    uint32_t rank, dense; /* the last `dense` ones are read together */
    uint64_t run, dense_span;
};

/* Copies the runs of the dimensions from `level` on, at one place. */
static int walk(struct gather_job *job, const struct gather_walk *box, uint32_t level,
                uint64_t source, uint64_t target)
{
    if (level == box->rank - box->dense)
        job->group_end = source + box->dense_span;
    if (level == box->rank)
        return copy_bytes(job, source, target, box->run);
    const struct gather_dimension *dimension = &box->dimensions[level];
    if (level + 1 == box->rank && box->dense > 0)
        return copy_line(job, dimension, box->run, source, target);
    int result = 0;
    for (uint64_t i = 0; i < dimension->count && result == 0; i++)
        result = walk(job, box, level + 1, source + i * dimension->source_stride,
                      target + i * dimension->target_stride);
    return result;
}

static int copy_whole(struct gather_job *job, const struct gather_dimension *dimensions,
                      uint32_t rank, uint64_t run, uint64_t source, uint64_t target)
{
    struct gather_walk box = {.rank = rank, .run = run};
    memcpy(box.dimensions, dimensions, rank * sizeof *dimensions);
    qsort(box.dimensions, rank, sizeof *dimensions, compare_source_strides);
    box.dense = dense_dimensions(box.dimensions, rank, run, &box.dense_span);
    job->sparse = box.dense < rank;
    job->window_length = 0;
    if (job->sparse && job->source->advise != NULL) {
        uint64_t span = box.dense_span;
        for (uint32_t i = 0; i + box.dense < rank; i++)
            span += (box.dimensions[i].count - 1) * box.dimensions[i].source_stride;
        job->source->advise(job->source->context, job->file, source, span);
    }
    return walk(job, &box, 0, source, target);
}

/* ---- cutting to the wanted range ---------------------------------------------------------------
 */

/* Bytes of the target from the first to the end of the last. */
static uint64_t target_span(const struct gather_dimension *dimensions, uint32_t rank, uint64_t run)
{
    uint64_t span = run;
    for (uint32_t i = 0; i < rank; i++)
        span += (dimensions[i].count - 1) * dimensions[i].target_stride;
    return span;
}

/* Copies what of the box lies in the wanted range: whole if all of it does, else cut along the
 * first dimension into a part before, whole ones, and a part after. */
static int copy_wanted(struct gather_job *job, const struct gather_dimension *dimensions,
                       uint32_t rank, uint64_t run, uint64_t source, uint64_t target)
{
    uint64_t end = target + target_span(dimensions, rank, run);
    if (target >= job->end || end <= job->start)
        return 0;
    if (target >= job->start && end <= job->end)
        return copy_whole(job, dimensions, rank, run, source, target);
    if (rank == 0) {
        uint64_t from = target > job->start ? target : job->start;
        job->sparse = false;
        job->window_length = 0;
        end = end < job->end ? end : job->end;
        job->group_end = source + (end - target);
        return copy_bytes(job, source + (from - target), from, end - from);
    }
    const struct gather_dimension *first = dimensions;
    uint64_t inner = target_span(dimensions + 1, rank - 1, run), i = 0;
    if (job->start > target) /* the first one that ends behind the start */
        i = job->start - target < inner ? 0
                                        : (job->start - target - inner) / first->target_stride + 1;
    int result = 0;
    while (result == 0 && i < first->count && target + i * first->target_stride < job->end) {
        uint64_t at = target + i * first->target_stride, whole = 0;
        if (at >= job->start && at + inner <= job->end)
            whole = (job->end - at - inner) / first->target_stride + 1;
        if (whole > first->count - i)
            whole = first->count - i;
        if (whole > 1) {
            struct gather_dimension part[GATHER_MAX_RANK];
            memcpy(part, dimensions, rank * sizeof *part);
            part[0].count = whole;
            result = copy_whole(job, part, rank, run, source + i * first->source_stride, at);
            i += whole;
        } else {
            result = copy_wanted(job, dimensions + 1, rank - 1, run,
                                 source + i * first->source_stride, at);
            i++;
        }
    }
    return result;
}

static int read_tensor(struct gather_job *job, const struct gather *gather)
{
    int result = 0;
    for (uint32_t i = 0; i < gather->box_count && result == 0; i++) {
        const struct gather_box *box = &gather->boxes[i];
        job->file = box->file;
        result = copy_wanted(job, box->dimensions, box->rank, box->run, box->source, box->target);
    }
    return result;
}

/* The piece that holds the byte at offset. */
static uint32_t find_piece(const struct gathered *file, uint64_t offset)
{
    uint32_t low = 0, high = file->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (file->pieces[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int gather_read(const struct gathered *file, uint64_t offset, void *buffer, size_t length,
                const struct gather_source *source, struct unshard_error *error)
{
    struct gather_job job = {.source = source, .error = error, .buffer = buffer};
    uint64_t end = offset + length;
    int result = 0;
    if (length == 0)
        return 0;
    job.window = aligned_alloc(GATHER_ALIGNMENT, GATHER_WINDOW_BYTES);
    if (job.window == NULL)
        return error_no_memory(error);
    for (uint32_t i = find_piece(file, offset);
         i < file->count && file->pieces[i].offset < end && result == 0; i++) {
        const struct gathered_piece *piece = &file->pieces[i];
        job.start = offset > piece->offset ? offset - piece->offset : 0;
        job.end = end - piece->offset;
        job.shift = piece->offset - offset;
        result = read_tensor(&job, piece->gather);
    }
    free(job.window);
    return result;
}
