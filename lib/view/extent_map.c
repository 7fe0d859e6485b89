/* SPDX-License-Identifier: MIT
 *
 * The reverse index: by_source holds the numbers of all file extents sorted by (source,
 * source_offset, view_offset), source_ends the largest end so far within the same source. Ends can
 * overlap (tied tensors), starts are sorted and the running maximum of ends is too, so the first
 * extent that can reach a source byte is found by binary search over source_ends. */
#include "view/extent_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- building ----------------------------------------------------------------------------------
 */

static bool continues(const struct extent_map_builder *builder, uint32_t source,
                      uint64_t source_offset)
{
    if (builder->count == 0)
        return false;

    const struct extent *last = &builder->extents[builder->count - 1];
    uint64_t last_length = builder->size - last->view_offset;

    return last->source == source && last->source_offset + last_length == source_offset;
}

static int append_extent(struct extent_map_builder *builder, uint32_t source,
                         uint64_t source_offset, uint64_t length)
{
    if (length > (uint64_t)INT64_MAX - builder->size || source_offset > INT64_MAX ||
        length > (uint64_t)INT64_MAX - source_offset)
        return -EOVERFLOW;
    if (!continues(builder, source, source_offset)) {
        if (builder->count == builder->capacity) {
            size_t capacity = builder->capacity == 0 ? 16 : builder->capacity * 2;
            struct extent *extents =
                reallocarray(builder->extents, capacity, sizeof *builder->extents);

            if (extents == NULL)
                return -ENOMEM;
            builder->extents = extents;
            builder->capacity = capacity;
        }
        builder->extents[builder->count++] = (struct extent){
            .view_offset = builder->size, .source_offset = source_offset, .source = source};
    }
    builder->size += length;
    return 0;
}

int extent_map_append_source(struct extent_map_builder *builder, uint32_t source,
                             uint64_t source_offset, uint64_t length)
{
    if (source == EXTENT_LITERAL)
        return -EINVAL;
    if (length == 0)
        return 0;
    return append_extent(builder, source, source_offset, length);
}

static int reserve_literal(struct extent_map_builder *builder, size_t length)
{
    size_t needed, capacity = builder->literal_capacity;

    if (__builtin_add_overflow(builder->literal_size, length, &needed))
        return -EOVERFLOW;
    if (needed <= capacity)
        return 0;
    capacity = capacity > SIZE_MAX / 2 || capacity * 2 < needed ? needed : capacity * 2;

    char *literal = realloc(builder->literal, capacity);

    if (literal == NULL)
        return -ENOMEM;
    builder->literal = literal;
    builder->literal_capacity = capacity;
    return 0;
}

int extent_map_append_literal(struct extent_map_builder *builder, const void *bytes, size_t length)
{
    int result;

    if (length == 0)
        return 0;
    result = reserve_literal(builder, length);
    if (result == 0)
        result = append_extent(builder, EXTENT_LITERAL, builder->literal_size, length);
    if (result != 0)
        return result;
    memcpy(builder->literal + builder->literal_size, bytes, length);
    builder->literal_size += length;
    return 0;
}

int extent_map_append_zeros(struct extent_map_builder *builder, size_t length)
{
    int result = 0;

    if (length > builder->zeros_length) {
        result = reserve_literal(builder, length);
        if (result != 0)
            return result;
        memset(builder->literal + builder->literal_size, 0, length);
        builder->zeros = builder->literal_size;
        builder->zeros_length = length;
        builder->literal_size += length;
    }
    return length == 0 ? 0 : append_extent(builder, EXTENT_LITERAL, builder->zeros, length);
}

static int compare_by_source(const void *left, const void *right, void *context)
{
    const struct extent *extents = context;
    const struct extent *a = &extents[*(const uint32_t *)left];
    const struct extent *b = &extents[*(const uint32_t *)right];

    if (a->source != b->source)
        return a->source < b->source ? -1 : 1;
    if (a->source_offset != b->source_offset)
        return a->source_offset < b->source_offset ? -1 : 1;
    return (a->view_offset > b->view_offset) - (a->view_offset < b->view_offset);
}

static uint64_t extent_end(const struct extent_map *map, size_t number)
{
    return number + 1 < map->count ? map->extents[number + 1].view_offset : map->size;
}

static uint64_t source_end(const struct extent_map *map, size_t number)
{
    const struct extent *extent = &map->extents[number];

    return extent->source_offset + (extent_end(map, number) - extent->view_offset);
}

static int build_reverse_index(struct extent_map *map)
{
    /* One more than needed: an empty map has arrays too. */
    map->by_source = calloc(map->count + 1, sizeof *map->by_source);
    map->source_ends = calloc(map->count + 1, sizeof *map->source_ends);
    if (map->by_source == NULL || map->source_ends == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < map->count; i++)
        map->by_source[i] = (uint32_t)i;
    qsort_r(map->by_source, map->count, sizeof *map->by_source, compare_by_source, map->extents);
    for (size_t i = 0; i < map->count; i++) {
        size_t number = map->by_source[i];
        uint64_t end = source_end(map, number);

        if (i > 0 && map->extents[map->by_source[i - 1]].source == map->extents[number].source &&
            map->source_ends[i - 1] > end)
            end = map->source_ends[i - 1];
        map->source_ends[i] = end;
    }
    return 0;
}

/* There are views of one extent, and many of them. */
static void give_room_back(struct extent_map_builder *builder)
{
    if (builder->count > 0) {
        struct extent *extents =
            reallocarray(builder->extents, builder->count, sizeof *builder->extents);
        builder->extents = extents != NULL ? extents : builder->extents;
    }
    if (builder->literal_size > 0) {
        char *literal = realloc(builder->literal, builder->literal_size);
        builder->literal = literal != NULL ? literal : builder->literal;
    }
}

int extent_map_finish(struct extent_map_builder *builder, struct extent_map *map)
{
    int result;

    give_room_back(builder);
    *map = (struct extent_map){.extents = builder->extents,
                               .count = builder->count,
                               .size = builder->size,
                               .literal = builder->literal,
                               .literal_size = builder->literal_size};
    *builder = (struct extent_map_builder){0};
    result = map->count >= UINT32_MAX ? -EOVERFLOW : build_reverse_index(map);
    if (result != 0)
        extent_map_free(map);
    return result;
}

void extent_map_builder_free(struct extent_map_builder *builder)
{
    free(builder->extents);
    free(builder->literal);
    *builder = (struct extent_map_builder){0};
}

size_t extent_map_memory(const struct extent_map *map)
{
    return map->literal_size +
           map->count * (sizeof *map->extents + sizeof *map->by_source + sizeof *map->source_ends);
}

void extent_map_free(struct extent_map *map)
{
    free(map->extents);
    free((char *)map->literal);
    free(map->by_source);
    free(map->source_ends);
    *map = (struct extent_map){0};
}

int extent_map_renumber(const struct extent_map *map, const uint32_t *numbers,
                        struct extent_map *out)
{
    *out = *map;
    out->by_source = NULL;
    out->source_ends = NULL;
    out->extents = calloc(map->count + 1, sizeof *out->extents);
    if (out->extents == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < map->count; i++) {
        out->extents[i] = map->extents[i];
        if (map->extents[i].source != EXTENT_LITERAL)
            out->extents[i].source = numbers[map->extents[i].source];
    }
    int result = build_reverse_index(out);
    if (result != 0)
        extent_map_free_renumbered(out);
    return result;
}

void extent_map_free_renumbered(struct extent_map *map)
{
    map->literal = NULL;
    extent_map_free(map);
}

/* ---- looking up --------------------------------------------------------------------------------
 */

/* The number of the extent that covers view_offset. */
static size_t extent_covering(const struct extent_map *map, uint64_t view_offset)
{
    size_t low = 0, high = map->count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (map->extents[middle].view_offset <= view_offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct extent_piece extent_map_at(const struct extent_map *map, uint64_t view_offset,
                                  uint64_t max_length)
{
    if (view_offset >= map->size)
        return (struct extent_piece){.view_offset = view_offset, .source = EXTENT_LITERAL};

    size_t number = extent_covering(map, view_offset);
    const struct extent *extent = &map->extents[number];
    uint64_t length = extent_end(map, number) - view_offset;

    return (struct extent_piece){.view_offset = view_offset,
                                 .source_offset =
                                     extent->source_offset + (view_offset - extent->view_offset),
                                 .length = length < max_length ? length : max_length,
                                 .source = extent->source};
}

struct extent_map_images extent_map_images_of(const struct extent_map *map, uint32_t source,
                                              uint64_t offset, uint64_t length)
{
    uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
    size_t low = 0, high = map->count;

    /* Literal extents sort last and are no images of any file. */
    if (source == EXTENT_LITERAL)
        low = map->count;
    /* The first extent of this source, or of a later one, after which something ends past offset.
     */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint32_t middle_source = map->extents[map->by_source[middle]].source;

        if (middle_source < source ||
            (middle_source == source && map->source_ends[middle] <= offset))
            low = middle + 1;
        else
            high = middle;
    }
    return (struct extent_map_images){
        .map = map, .offset = offset, .end = end, .source = source, .next = low};
}

bool extent_map_next_image(struct extent_map_images *images, struct extent_piece *out)
{
    const struct extent_map *map = images->map;

    while (images->next < map->count && images->offset < images->end) {
        size_t number = map->by_source[images->next];
        const struct extent *extent = &map->extents[number];

        if (extent->source != images->source || extent->source_offset >= images->end)
            break;
        images->next++;

        uint64_t start =
            extent->source_offset > images->offset ? extent->source_offset : images->offset;
        uint64_t end = source_end(map, number);

        end = end < images->end ? end : images->end;
        if (start >= end)
            continue;
        *out = (struct extent_piece){.view_offset =
                                         extent->view_offset + (start - extent->source_offset),
                                     .source_offset = start,
                                     .length = end - start,
                                     .source = images->source};
        return true;
    }
    return false;
}

uint32_t extent_map_next_source(const struct extent_map *map, uint32_t from)
{
    size_t at = extent_map_images_of(map, from, 0, UINT64_MAX).next;
    return at < map->count ? map->extents[map->by_source[at]].source : EXTENT_LITERAL;
}
