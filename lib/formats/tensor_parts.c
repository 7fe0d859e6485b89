/* SPDX-License-Identifier: MIT */
#include "formats/tensor_parts.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "formats/gather.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Pairs of parts that are looked at for overlap. Grids of thousands of parts need far fewer. */
#define MAX_COMPARISONS 50000000U

struct group { /* of parts of one name */
    const struct tensor **parts;
    uint32_t count, capacity;
};

struct join {
    const char *component;
    struct arena *arena;
    struct unshard_error *error;
    struct string_map names; /* -> number of the group */
    struct group *groups;    /* malloc'd, as are their arrays */
    size_t group_count, group_capacity;
    size_t comparisons;
};

#define malformed(join, tensor, format, ...)                                     \
    error_set((join)->error, "malformed-parts", 0, "%s: tensor \"%s\": " format, \
              (join)->component,                                                 \
              error_quote((char[96]){0}, 96, (tensor)->name, (tensor)->name_length), __VA_ARGS__)

bool tensor_parts_present(const struct tensor_set *set)
{
    for (size_t i = 0; i < set->tensor_count; i++)
        if (set->tensors[i].part != NULL)
            return true;
    return false;
}

/* ---- grouping ----------------------------------------------------------------------------------
 */

static struct group *group_of(struct join *join, const struct tensor *tensor)
{
    uint32_t number = 0;
    int added = string_map_add(&join->names, tensor->name, tensor->name_length,
                               (uint32_t)join->group_count, &number);
    if (added < 0)
        return NULL;
    if (added == 0)
        return &join->groups[number];
    if (join->group_count == join->group_capacity) {
        size_t capacity = join->group_capacity == 0 ? 64 : join->group_capacity * 2;
        struct group *grown = reallocarray(join->groups, capacity, sizeof *grown);
        if (grown == NULL)
            return NULL;
        join->groups = grown;
        join->group_capacity = capacity;
    }
    join->groups[join->group_count] = (struct group){0};
    return &join->groups[join->group_count++];
}

static int add_tensor(struct join *join, const struct tensor *tensor)
{
    struct group *group = group_of(join, tensor);
    if (group == NULL)
        return error_no_memory(join->error);
    if (group->count > 0 && (tensor->part == NULL || group->parts[0]->part == NULL))
        return error_set(join->error, "duplicate-tensor", 0, "%s: tensor \"%s\" is there twice",
                         join->component,
                         error_quote((char[96]){0}, 96, tensor->name, tensor->name_length));
    if (group->count == group->capacity) {
        uint32_t capacity = group->capacity == 0 ? 2 : group->capacity * 2;
        const struct tensor **grown = reallocarray(group->parts, capacity, sizeof(struct tensor *));
        if (grown == NULL)
            return error_no_memory(join->error);
        group->parts = grown;
        group->capacity = capacity;
    }
    group->parts[group->count++] = tensor;
    return 0;
}

/* ---- geometry ----------------------------------------------------------------------------------
 */

static bool is_empty(const struct tensor *tensor)
{
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0)
            return true;
    return false;
}

/* The shape of the whole: as the parts say, or as far as they reach. */
static int find_shape(struct join *join, const struct group *group, uint64_t *shape)
{
    const struct tensor *first = group->parts[0];
    memset(shape, 0, first->rank * sizeof *shape);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct tensor *part = group->parts[i];
        if (part->rank != first->rank || part->dtype != first->dtype)
            return malformed(join, first, "%s", "its parts differ in type or dimensions");
        for (uint32_t d = 0; d < part->rank; d++) {
            uint64_t end;
            if (!checked_add(part->part->offsets[d], part->shape[d], &end))
                return malformed(join, first, "%s", "a part lies at an offset that overflows");
            if (part->part->whole != NULL && end > part->part->whole[d])
                return malformed(join, first, "%s", "a part lies outside of it");
            uint64_t reach = part->part->whole != NULL ? part->part->whole[d] : end;
            shape[d] = reach > shape[d] ? reach : shape[d];
        }
    }
    return 0;
}

static bool overlap(const struct tensor *a, const struct tensor *b)
{
    for (uint32_t d = 0; d < a->rank; d++) {
        uint64_t a_begin = a->part->offsets[d], b_begin = b->part->offsets[d];
        if (a_begin + a->shape[d] <= b_begin || b_begin + b->shape[d] <= a_begin)
            return false;
    }
    return true;
}

static int compare_offsets(const void *left, const void *right)
{
    const struct tensor *a = *(const struct tensor *const *)left;
    const struct tensor *b = *(const struct tensor *const *)right;
    for (uint32_t d = 0; d < a->rank; d++)
        if (a->part->offsets[d] != b->part->offsets[d])
            return a->part->offsets[d] < b->part->offsets[d] ? -1 : 1;
    return 0;
}

/* The first dimension along which the parts lie side by side. */
static uint32_t first_split(const struct group *group)
{
    const struct tensor *first = group->parts[0];
    for (uint32_t d = 0; d < first->rank; d++)
        for (uint32_t i = 1; i < group->count; i++)
            if (group->parts[i]->part->offsets[d] != first->part->offsets[d])
                return d;
    return 0;
}

/* No two parts have an element in common. Sorted by offset: a part need only be compared with those
 * that begin before it ends. */
static int check_disjoint(struct join *join, const struct group *group)
{
    const struct tensor **sorted = calloc(group->count, sizeof(struct tensor *));
    uint32_t d = first_split(group), count = 0;
    int result = 0;
    if (sorted == NULL)
        return error_no_memory(join->error);
    for (uint32_t i = 0; i < group->count; i++)
        if (!is_empty(group->parts[i]))
            sorted[count++] = group->parts[i];
    qsort(sorted, count, sizeof(struct tensor *), compare_offsets);
    for (uint32_t i = 0; i < count && result == 0; i++)
        for (uint32_t k = i + 1; k < count && result == 0 && sorted[i]->rank > 0; k++) {
            if (sorted[k]->part->offsets[d] >= sorted[i]->part->offsets[d] + sorted[i]->shape[d])
                break;
            if (overlap(sorted[i], sorted[k]))
                result = malformed(join, sorted[i], "%s", "two of its parts overlap");
            else if (++join->comparisons > MAX_COMPARISONS)
                result = malformed(join, sorted[i], "%s", "it has too many parts");
        }
    free(sorted);
    return result;
}

/* Disjoint parts within the whole that have as many elements as it cover it. */
static int check_cover(struct join *join, const struct group *group, const uint64_t *shape)
{
    const struct tensor *first = group->parts[0];
    uint64_t whole = 1, sum = 0;
    for (uint32_t d = 0; d < first->rank; d++)
        if (!checked_mul(whole, shape[d], &whole))
            return malformed(join, first, "%s", "its number of elements overflows");
    for (uint32_t i = 0; i < group->count; i++) {
        uint64_t count = 1;
        for (uint32_t d = 0; d < first->rank; d++)
            count *= group->parts[i]->shape[d]; /* each at most that of the whole */
        if (!checked_add(sum, count, &sum))
            sum = UINT64_MAX;
    }
    if (sum != whole)
        return malformed(join, first,
                         "its parts have %" PRIu64 " elements together, and it has %" PRIu64, sum,
                         whole);
    return check_disjoint(join, group);
}

/* ---- joining -----------------------------------------------------------------------------------
 */

/* Where the elements of a part come from and go to. */
static int make_box(struct join *join, const struct tensor *part, const uint64_t *shape,
                    struct gather_box *out)
{
    uint64_t source[GATHER_MAX_RANK], target[GATHER_MAX_RANK];
    uint64_t element = dtype_bits(part->dtype) / 8, packed = element, stride = element, start = 0;
    for (uint32_t d = part->rank; d-- > 0;) {
        source[d] = part->gather != NULL ? part->gather->strides[d] : packed;
        target[d] = stride;
        start += part->part->offsets[d] * stride;
        packed *= part->shape[d];
        stride *= shape[d];
    }
    struct gather_grid grid = {.file = part->file,
                               .rank = part->rank,
                               .source = part->gather != NULL ? part->gather->boxes[0].source
                                                              : part->offset,
                               .target = start,
                               .element_size = element,
                               .shape = part->shape,
                               .source_strides = source,
                               .target_strides = target};
    return gather_box_make(&grid, join->arena, out) == 0 ? 0 : error_no_memory(join->error);
}

static int join_parts(struct join *join, const struct group *group, const uint64_t *shape,
                      struct tensor *out)
{
    const struct tensor *first = group->parts[0];
    uint64_t bytes = dtype_bits(first->dtype) / 8;
    if (dtype_bits(first->dtype) % 8 != 0 || first->rank > GATHER_MAX_RANK)
        return error_set(join->error, "unsupported-parts", ENOTSUP,
                         "%s: tensor \"%s\": parts of %s elements in %u dimensions",
                         join->component,
                         error_quote((char[96]){0}, 96, first->name, first->name_length),
                         dtype_name(first->dtype), first->rank);
    for (uint32_t d = 0; d < first->rank; d++)
        if (!checked_mul(bytes, shape[d], &bytes))
            return malformed(join, first, "%s", "its size overflows");
    struct gather *gather = arena_alloc(join->arena, sizeof *gather);
    uint64_t *kept = arena_alloc_array(join->arena, first->rank, sizeof *kept);
    if (gather == NULL || kept == NULL)
        return error_no_memory(join->error);
    gather->boxes = arena_alloc_array(join->arena, group->count, sizeof *gather->boxes);
    if (gather->boxes == NULL)
        return error_no_memory(join->error);
    memcpy(kept, shape, first->rank * sizeof *kept);
    gather->length = bytes;
    for (uint32_t i = 0; i < group->count; i++) {
        if (is_empty(group->parts[i]))
            continue;
        int result = make_box(join, group->parts[i], shape, &gather->boxes[gather->box_count++]);
        if (result != 0)
            return result;
    }
    *out = *first;
    out->part = NULL;
    out->shape = kept;
    out->length = bytes;
    out->gather = bytes > 0 ? gather : NULL;
    out->offset = 0;
    return 0;
}

static int join_group(struct join *join, const struct group *group, struct tensor *out)
{
    const struct tensor *first = group->parts[0];
    if (first->part == NULL) {
        *out = *first;
        return 0;
    }
    uint64_t *shape = calloc(first->rank + 1U, sizeof *shape);
    if (shape == NULL)
        return error_no_memory(join->error);
    int result = find_shape(join, group, shape);
    if (result == 0)
        result = check_cover(join, group, shape);
    if (result == 0 && group->count == 1) { /* all of it */
        *out = *first;
        out->part = NULL;
    } else if (result == 0) {
        result = join_parts(join, group, shape, out);
    }
    free(shape);
    return result;
}

static int compare_canonical(const void *left, const void *right)
{
    return tensor_canonical_compare(left, right);
}

static int join_all(struct join *join, struct tensor_set *sets, size_t set_count)
{
    struct tensor *tensors = arena_alloc_array(join->arena, join->group_count, sizeof *tensors);
    if (tensors == NULL)
        return error_no_memory(join->error);
    for (size_t i = 0; i < join->group_count; i++) {
        int result = join_group(join, &join->groups[i], &tensors[i]);
        if (result != 0)
            return result;
    }
    qsort(tensors, join->group_count, sizeof *tensors, compare_canonical);
    for (size_t i = 0; i < set_count; i++)
        sets[i].tensor_count = 0;
    sets[0].tensors = tensors;
    sets[0].tensor_count = join->group_count;
    return 0;
}

int tensor_parts_join(struct tensor_set *sets, size_t set_count, const char *component,
                      struct arena *arena, struct unshard_error *error)
{
    struct join join = {.component = component, .arena = arena, .error = error};
    int result = 0;
    for (size_t i = 0; i < set_count && result == 0; i++)
        for (size_t t = 0; t < sets[i].tensor_count && result == 0; t++)
            result = add_tensor(&join, &sets[i].tensors[t]);
    if (result == 0 && set_count > 0)
        result = join_all(&join, sets, set_count);
    string_map_free(&join.names);
    for (size_t i = 0; i < join.group_count; i++)
        free(join.groups[i].parts);
    free(join.groups);
    return result;
}
