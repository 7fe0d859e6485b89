/* SPDX-License-Identifier: MIT
 *
 * Reading a GGUF header. The checks follow the order of the reference (ggml/src/gguf.cpp,
 * gguf_init_from_reader), so that a file with several faults is refused for the same one. */
#include "formats/gguf/gguf.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "base/utf8.h"
#include "formats/foreign_content.h"
#include "formats/gguf/ggml_type.h"
#include "formats/gguf/gguf_cursor.h"

#define VERSION 3U
#define QUOTED 96
/* The least that a pair, and a tensor info, take: what a count is checked against. */
#define LEAST_PAIR 14U
#define LEAST_TENSOR 24U

/* A pair while the header is read, when its data may still move. */
struct pair_place {
    size_t key, key_length, value, value_length;
    uint64_t count;
    enum gguf_type type;
    bool is_array;
};

struct parse {
    struct gguf_cursor cursor;
    const char *path;
    struct arena *arena;
    struct unshard_error *error;
    uint64_t tensor_count, pair_count;
    uint32_t version;
    struct pair_place *places;
    size_t places_bytes; /* charged */
    struct gguf_pair *pairs;
    struct tensor *tensors;
    uint32_t *types;
    uint64_t alignment;
    uint64_t data_bytes; /* of the tensors so far, each padded */
    uint64_t data_end;   /* of the last tensor, without its padding */
    struct string_map keys, names;
    char where[QUOTED + 32]; /* the pair or tensor at hand, for messages */
};

#define malformed(parse, format, ...)                                             \
    error_set_at((parse)->error, "malformed-header", 0, (parse)->cursor.position, \
                 "%s: header: " format, (parse)->path, __VA_ARGS__)

unsigned gguf_type_size(enum gguf_type type)
{
    static const unsigned char sizes[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};

    return type < GGUF_TYPE_COUNT ? sizes[type] : 0;
}

const struct gguf_pair *gguf_find(const struct gguf_header *header, const char *key)
{
    size_t length = strlen(key);

    for (size_t i = 0; i < header->pair_count; i++)
        if (header->pairs[i].key_length == length && memcmp(header->pairs[i].key, key, length) == 0)
            return &header->pairs[i];
    return NULL;
}

/* ---- names -------------------------------------------------------------------------------------
 */

static bool is_name(const unsigned char *bytes, size_t length)
{
    while (length > 0) {
        size_t sequence = *bytes == '\0' ? 0 : utf8_sequence(bytes, length);

        if (sequence == 0)
            return false;
        bytes += sequence;
        length -= sequence;
    }
    return true;
}

/* Notes which pair or tensor is at hand: "key "..."", "tensor "..."". */
static void set_where(struct parse *parse, const char *kind, size_t start, size_t length)
{
    char name[QUOTED];

    error_quote(name, sizeof name, (const char *)parse->cursor.data + start, length);
    snprintf(parse->where, sizeof parse->where, "%s \"%s\"", kind, name);
}

/* Reads a name and leaves it in `where`. */
static int read_name(struct parse *parse, const char *kind, size_t *start, size_t *length)
{
    int result = gguf_cursor_string(&parse->cursor, kind, start, length);

    if (result != 0)
        return result;
    set_where(parse, kind, *start, *length);
    if (!is_name(parse->cursor.data + *start, *length))
        return malformed(parse, "%s: the name is not UTF-8, or holds NUL", parse->where);
    return 0;
}

/* Keys of a map are not copied, and the header's bytes may move: so the copy is made first. */
static int claim_name(struct parse *parse, struct string_map *map, size_t start, size_t length,
                      uint32_t number, const char **out)
{
    *out = arena_copy_string(parse->arena, (const char *)parse->cursor.data + start, length);
    int added = *out == NULL ? -ENOMEM : string_map_add(map, *out, length, number, NULL);

    if (added < 0)
        return error_no_memory(parse->error);
    if (added == 0 && map == &parse->names)
        return error_set(parse->error, "duplicate-tensor", 0, "%s: header: %s: name appears twice",
                         parse->path, parse->where);
    if (added == 0)
        return malformed(parse, "%s: key appears twice", parse->where);
    return 0;
}

/* ---- key-value pairs ---------------------------------------------------------------------------
 */

static int read_strings(struct parse *parse, uint64_t count)
{
    size_t start, length;
    int result = 0;

    for (uint64_t i = 0; i < count && result == 0; i++)
        result = gguf_cursor_string(&parse->cursor, parse->where, &start, &length);
    return result;
}

static int read_value(struct parse *parse, struct pair_place *place)
{
    uint64_t least = place->type == GGUF_STRING ? 8 : gguf_type_size(place->type);
    int result;

    if (place->count > GGUF_MAX_ELEMENTS)
        return malformed(parse, "%s: %" PRIu64 " elements are above the limit of %" PRIu64,
                         parse->where, place->count, GGUF_MAX_ELEMENTS);
    result = gguf_cursor_need(&parse->cursor, place->count * least, parse->where);
    if (result != 0)
        return result;
    place->value = parse->cursor.position;
    if (place->type == GGUF_STRING)
        result = read_strings(parse, place->count);
    else
        parse->cursor.position += (size_t)(place->count * least);
    place->value_length = parse->cursor.position - place->value;
    return result;
}

static int read_pair(struct parse *parse, uint32_t number)
{
    struct pair_place *place = &parse->places[number];
    struct gguf_pair *pair = &parse->pairs[number];
    uint32_t type = 0;
    int result = read_name(parse, "key", &place->key, &place->key_length);

    if (result == 0 && place->key_length == 0)
        result = malformed(parse, "key %" PRIu32 " is empty", number);
    if (result == 0)
        result = claim_name(parse, &parse->keys, place->key, place->key_length, number, &pair->key);
    if (result == 0)
        result = gguf_cursor_u32(&parse->cursor, parse->where, &type);
    place->count = 1;
    place->is_array = type == GGUF_ARRAY;
    if (result == 0 && place->is_array)
        result = gguf_cursor_u32(&parse->cursor, parse->where, &type);
    if (result == 0 && place->is_array)
        result = gguf_cursor_u64(&parse->cursor, parse->where, &place->count);
    if (result != 0)
        return result;
    if (type >= GGUF_TYPE_COUNT || type == GGUF_ARRAY)
        return malformed(parse, "%s: %s of type %" PRIu32 " is not possible", parse->where,
                         place->is_array ? "an array" : "a value", type);
    place->type = (enum gguf_type)type;
    return read_value(parse, place);
}

static int read_pairs(struct parse *parse)
{
    int result = 0;

    parse->places_bytes = (size_t)(parse->pair_count + 1) * sizeof *parse->places;
    if (arena_charge(parse->arena, parse->places_bytes))
        parse->places = calloc(parse->pair_count + 1, sizeof *parse->places);
    else
        parse->places_bytes = 0;
    parse->pairs = arena_alloc_array(parse->arena, parse->pair_count, sizeof *parse->pairs);
    if (parse->places == NULL || parse->pairs == NULL)
        return error_no_memory(parse->error);
    for (uint32_t i = 0; i < parse->pair_count && result == 0; i++)
        result = read_pair(parse, i);
    return result;
}

/* All pairs have been read. Their values stay where they are, until the header's data moves. */
static void settle_pairs(struct parse *parse)
{
    for (uint64_t i = 0; i < parse->pair_count; i++) {
        const struct pair_place *place = &parse->places[i];
        struct gguf_pair *pair = &parse->pairs[i];

        pair->value = parse->cursor.data + place->value;
        pair->key_length = (uint32_t)place->key_length;
        pair->type = place->type;
        pair->is_array = place->is_array;
        pair->count = place->count;
        pair->value_length = place->value_length;
    }
}

/* The whole header has been read: its data stays as long as the pairs, all of it, so that a large
 * header is not in memory twice. */
static int keep_values(struct parse *parse)
{
    if (!gguf_cursor_keep(&parse->cursor))
        return error_no_memory(parse->error);
    settle_pairs(parse);
    return 0;
}

static int find_alignment(struct parse *parse)
{
    const struct gguf_header header = {.pairs = parse->pairs,
                                       .pair_count = (size_t)parse->pair_count};
    const struct gguf_pair *pair = gguf_find(&header, "general.alignment");
    uint32_t value;

    parse->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (pair == NULL)
        return 0;
    if (pair->type != GGUF_U32 || pair->is_array)
        return malformed(parse, "%s", "key \"general.alignment\": is no u32");
    memcpy(&value, pair->value, sizeof value);
    parse->alignment = le32toh(value);
    if (parse->alignment == 0 || (parse->alignment & (parse->alignment - 1)) != 0)
        return malformed(parse, "key \"general.alignment\": %" PRIu64 " is no power of two",
                         parse->alignment);
    if (parse->alignment > GGUF_MAX_ALIGNMENT)
        return malformed(parse,
                         "key \"general.alignment\": %" PRIu64 " is above the limit of %" PRIu64,
                         parse->alignment, GGUF_MAX_ALIGNMENT);
    return 0;
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

static int read_shape(struct parse *parse, struct tensor *tensor)
{
    uint64_t dimensions[GGUF_MAX_DIMENSIONS], elements = 1, *shape;
    int result = gguf_cursor_u32(&parse->cursor, parse->where, &tensor->rank);

    if (result == 0 && tensor->rank > GGUF_MAX_DIMENSIONS)
        result = malformed(parse, "%s: %" PRIu32 " dimensions, at most %d are possible",
                           parse->where, tensor->rank, GGUF_MAX_DIMENSIONS);
    for (uint32_t i = 0; i < tensor->rank && result == 0; i++) {
        result = gguf_cursor_u64(&parse->cursor, parse->where, &dimensions[i]);
        if (result == 0 && dimensions[i] > INT64_MAX)
            result = malformed(parse, "%s: dimension %" PRIu32 " is negative", parse->where, i);
        if (result == 0 &&
            (!checked_mul(elements, dimensions[i], &elements) || elements > INT64_MAX))
            result = malformed(parse, "%s: the number of elements overflows at dimension %" PRIu64,
                               parse->where, dimensions[i]);
    }
    if (result != 0)
        return result;
    shape = arena_alloc_array(parse->arena, tensor->rank, sizeof *shape);
    if (shape == NULL)
        return error_no_memory(parse->error);
    memcpy(shape, dimensions, tensor->rank * sizeof *shape);
    tensor->shape = shape;
    return 0;
}

static int read_type(struct parse *parse, struct tensor *tensor, uint32_t *number)
{
    uint64_t elements = 1, row = tensor->rank > 0 ? tensor->shape[0] : 1;
    int result = gguf_cursor_u32(&parse->cursor, parse->where, number);

    if (result != 0)
        return result;
    const struct ggml_type *type = ggml_type_of(*number);
    if (type == NULL)
        return malformed(parse, "%s: element type %" PRId32 " is unknown", parse->where,
                         (int32_t)*number);
    if (row % type->block_elements != 0)
        return malformed(parse, "%s: %" PRIu64 " elements a row are no whole blocks of %u (%s)",
                         parse->where, row, type->block_elements, type->name);
    for (uint32_t i = 0; i < tensor->rank; i++)
        elements *= tensor->shape[i]; /* was checked */
    if (!checked_mul(elements / type->block_elements, type->block_bytes, &tensor->length))
        return malformed(parse, "%s: the size of %" PRIu64 " elements of %s overflows",
                         parse->where, elements, type->name);
    tensor->type_name = type->name;
    return 0;
}

/* No hole, no overlap, no other order than that of the file. */
static int read_offset(struct parse *parse, struct tensor *tensor)
{
    uint64_t mask = parse->alignment - 1, padded;
    int result = gguf_cursor_u64(&parse->cursor, parse->where, &tensor->offset);

    if (result != 0)
        return result;
    if (tensor->offset != parse->data_bytes)
        return malformed(parse, "%s: begins at %" PRIu64 ", the tensors before it end at %" PRIu64,
                         parse->where, tensor->offset, parse->data_bytes);
    if (!checked_add(tensor->length, mask, &padded) ||
        !checked_add(parse->data_bytes, padded & ~mask, &parse->data_bytes) ||
        parse->data_bytes > INT64_MAX)
        return malformed(parse, "%s: the sizes of all tensors together overflow", parse->where);
    if (tensor->length > 0)
        parse->data_end = tensor->offset + tensor->length;
    return 0;
}

static int read_tensor(struct parse *parse, uint32_t number)
{
    struct tensor *tensor = &parse->tensors[number];
    size_t start = 0, length = 0;
    int result = read_name(parse, "tensor", &start, &length);

    if (result == 0 && length >= GGUF_NAME_CAPACITY)
        result = malformed(parse, "%s: a name of %zu bytes, at most %d are possible", parse->where,
                           length, GGUF_NAME_CAPACITY - 1);
    if (result == 0)
        result = claim_name(parse, &parse->names, start, length, number, &tensor->name);
    tensor->name_length = (uint32_t)length;
    if (result == 0)
        result = read_shape(parse, tensor);
    if (result == 0)
        result = read_type(parse, tensor, &parse->types[number]);
    return result == 0 ? read_offset(parse, tensor) : result;
}

static int read_tensors(struct parse *parse)
{
    int result = 0;

    parse->tensors = arena_alloc_array(parse->arena, parse->tensor_count, sizeof *parse->tensors);
    parse->types = arena_alloc_array(parse->arena, parse->tensor_count, sizeof *parse->types);
    if (parse->tensors == NULL || parse->types == NULL)
        return error_no_memory(parse->error);
    for (uint32_t i = 0; i < parse->tensor_count && result == 0; i++)
        result = read_tensor(parse, i);
    return result;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int check_version(struct parse *parse)
{
    if ((parse->version & 0xffffU) == 0 && parse->version != 0)
        return error_set_at(parse->error, "unsupported-version", 0, 4,
                            "%s: header: version 0x%08" PRIx32 ": the file is big-endian",
                            parse->path, parse->version);
    if (parse->version < 2 || parse->version > VERSION)
        return error_set_at(parse->error, "unsupported-version", 0, 4,
                            "%s: header: version %" PRIu32 " is not supported, only 2 and %u are",
                            parse->path, parse->version, VERSION);
    return 0;
}

/* A count that the rest of the file cannot hold is not believed. */
static int check_count(struct parse *parse, uint64_t count, unsigned least, const char *what)
{
    uint64_t rest = parse->cursor.reader->size - parse->cursor.position;

    if (count > INT64_MAX)
        return malformed(parse, "%s count %" PRId64 " is negative", what, (int64_t)count);
    if (count > GGUF_MAX_TENSORS)
        return malformed(parse, "%s count %" PRIu64 " is above the limit of %" PRIu64, what, count,
                         GGUF_MAX_TENSORS);
    if (count > rest / least)
        return error_set_at(parse->error, "truncated", 0, parse->cursor.position,
                            "%s: header: %s count %" PRIu64 " does not fit in a file of %" PRIu64
                            " bytes",
                            parse->path, what, count, parse->cursor.reader->size);
    return 0;
}

static int read_start(struct parse *parse)
{
    struct gguf_cursor *cursor = &parse->cursor;
    int result = gguf_cursor_need(cursor, 8, "magic and version");

    if (result != 0 && cursor->reader->size < 8 &&
        foreign_content(cursor->reader, parse->path, NULL, parse->error) != 0)
        return -EINVAL;
    if (result != 0)
        return result;
    if (memcmp(cursor->data, "GGUF", 4) != 0) {
        char magic[24];

        if (foreign_content(cursor->reader, parse->path, "GGUF", parse->error) != 0)
            return -EINVAL;
        error_quote(magic, sizeof magic, (const char *)cursor->data, 4);
        return malformed(parse, "the file begins with \"%s\", not with \"GGUF\"", magic);
    }
    cursor->position = 4;
    result = gguf_cursor_u32(cursor, "version", &parse->version);
    if (result == 0)
        result = check_version(parse);
    if (result == 0)
        result = gguf_cursor_u64(cursor, "tensor count", &parse->tensor_count);
    if (result == 0)
        result = gguf_cursor_u64(cursor, "key count", &parse->pair_count);
    if (result == 0)
        result = check_count(parse, parse->tensor_count, LEAST_TENSOR, "tensor");
    return result == 0 ? check_count(parse, parse->pair_count, LEAST_PAIR, "key") : result;
}

static int deliver(struct parse *parse, struct tensor_set *out)
{
    struct gguf_header *header = arena_alloc(parse->arena, sizeof *header);
    uint64_t mask = parse->alignment - 1, size = parse->cursor.reader->size;
    uint64_t start = parse->cursor.position;

    if (header == NULL)
        return error_no_memory(parse->error);
    if (parse->tensor_count > 0)
        start = (start + mask) & ~mask;
    *header = (struct gguf_header){.version = parse->version,
                                   .alignment = parse->alignment,
                                   .pairs = parse->pairs,
                                   .pair_count = (size_t)parse->pair_count,
                                   .types = parse->types};
    for (uint64_t i = 0; i < parse->tensor_count; i++)
        parse->tensors[i].offset += start;
    *out = (struct tensor_set){.tensors = parse->tensors,
                               .tensor_count = (size_t)parse->tensor_count,
                               .data_offset = start,
                               .detail = header};
    if (start + parse->data_end > size)
        return error_set(parse->error, "truncated", 0,
                         "%s: data is truncated: the header describes %" PRIu64
                         " bytes from %" PRIu64 " on, the file ends at %" PRIu64,
                         parse->path, parse->data_end, start, size);
    return 0;
}

int gguf_read(const struct byte_reader *reader, const char *path, struct arena *arena,
              struct tensor_set *out, struct unshard_error *error)
{
    struct parse *parse = calloc(1, sizeof *parse);
    int result;

    if (parse == NULL)
        return error_no_memory(error);
    parse->cursor =
        (struct gguf_cursor){.reader = reader, .path = path, .error = error, .arena = arena};
    parse->path = path;
    parse->arena = arena;
    parse->error = error;
    result = read_start(parse);
    if (result == 0)
        result = read_pairs(parse);
    if (result == 0)
        settle_pairs(parse);
    if (result == 0)
        result = find_alignment(parse);
    if (result == 0)
        result = read_tensors(parse);
    if (result == 0)
        result = keep_values(parse);
    if (result == 0)
        result = deliver(parse, out);
    gguf_cursor_free(&parse->cursor);
    string_map_free(&parse->keys);
    string_map_free(&parse->names);
    free(parse->places);
    arena_discharge(arena, parse->places_bytes);
    free(parse);
    return result;
}

void gguf_hash_detail(const struct tensor_set *set, XXH3_state_t *state)
{
    const struct gguf_header *header = set->detail;
    uint64_t numbers[] = {header->version, header->alignment, header->pair_count};
    XXH3_128bits_update(state, numbers, sizeof numbers);
    XXH3_128bits_update(state, header->types, set->tensor_count * sizeof *header->types);
    for (size_t i = 0; i < header->pair_count; i++) {
        const struct gguf_pair *pair = &header->pairs[i];
        uint64_t lengths[] = {pair->key_length, pair->type, pair->is_array, pair->count,
                              pair->value_length};
        XXH3_128bits_update(state, lengths, sizeof lengths);
        XXH3_128bits_update(state, pair->key, pair->key_length);
        XXH3_128bits_update(state, pair->value, pair->value_length);
    }
}
