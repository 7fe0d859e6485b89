/* SPDX-License-Identifier: MIT
 *
 * Reading a safetensors header. The checks follow the order of the reference (safetensors
 * src/tensor.rs, Metadata::validate), so that a file with several faults is refused for the same
 * one. */
#include "formats/safetensors/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "formats/foreign_content.h"
#include "json/json_reader.h"

/* No framework has tensors of more than 64 dimensions; the bound keeps a hostile shape small. */
#define MAX_RANK 1024
#define QUOTED 96
#define WANTED "safetensors"

/* While it is parsed, tensor.offset holds BEGIN and tensor.length END. */
struct parsed_tensor {
    struct tensor tensor;
    uint32_t position; /* in the header: keeps empty tensors at one offset in file order */
};

struct parse {
    struct json_reader reader;
    const char *path;
    struct arena *arena;
    struct unshard_error *error;
    struct parsed_tensor *tensors;
    size_t tensor_count, tensor_capacity;
    struct metadata_entry *metadata;
    size_t metadata_count, metadata_capacity;
    bool metadata_seen, have_metadata; /* a null was seen, but is no metadata */
    struct string_map names, keys;
    bool layout_known; /* all is well but for the end of the file */
    uint64_t shape[MAX_RANK];
};

/* ---- errors ------------------------------------------------------------------------------------
 */

/* Turns what the JSON reader found into an error; `where` names the field. */
static int json_failed(struct parse *parse, int result, const char *where)
{
    if (result == -ENOMEM)
        return error_no_memory(parse->error);

    uint64_t offset = 8 + (uint64_t)parse->reader.problem_offset;

    return error_set_at(parse->error, "malformed-header", 0, offset,
                        "%s: header: %s: %s at byte %" PRIu64, parse->path, where,
                        parse->reader.problem != NULL ? parse->reader.problem : "malformed",
                        offset);
}

static const char *tensor_place(char out[QUOTED + 32], const struct tensor *tensor,
                                const char *field)
{
    char name[QUOTED];

    error_quote(name, sizeof name, tensor->name, tensor->name_length);
    snprintf(out, QUOTED + 32, "tensor \"%s\"%s%s", name, field[0] != '\0' ? ": " : "", field);
    return out;
}

static int tensor_json_failed(struct parse *parse, int result, const struct tensor *tensor,
                              const char *field)
{
    char place[QUOTED + 32];

    return json_failed(parse, result, tensor_place(place, tensor, field));
}

/* A fault of a value that is fine as JSON. */
#define tensor_failed(parse, tensor, field, format, ...)                                       \
    error_set((parse)->error, "malformed-header", 0, "%s: header: %s: " format, (parse)->path, \
              tensor_place((char[QUOTED + 32]){0}, tensor, field), __VA_ARGS__)

/* ---- the JSON ----------------------------------------------------------------------------------
 */

/* Room for one more element of a malloc'd array. */
static void *grown(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return array;

    size_t larger = *capacity == 0 ? 64 : *capacity * 2;
    void *result = reallocarray(array, larger, size);

    if (result != NULL)
        *capacity = larger;
    return result;
}

static int add_metadata(struct parse *parse, struct metadata_entry entry)
{
    uint32_t existing;
    int added = string_map_add(&parse->keys, entry.key, entry.key_length,
                               (uint32_t)parse->metadata_count, &existing);

    if (added < 0)
        return added;
    if (added == 0) { /* as the reference has it: the last value of a key wins */
        parse->metadata[existing] = entry;
        return 0;
    }
    struct metadata_entry *metadata =
        grown(parse->metadata, parse->metadata_count, &parse->metadata_capacity, sizeof *metadata);
    if (metadata == NULL)
        return -ENOMEM;
    parse->metadata = metadata;
    metadata[parse->metadata_count++] = entry;
    return 0;
}

static int copy_string(struct parse *parse, struct json_string string, const char **out,
                       uint32_t *length)
{
    *out = arena_copy_string(parse->arena, string.bytes, string.length);
    *length = (uint32_t)string.length;
    return *out == NULL ? -ENOMEM : 0;
}

static int parse_metadata(struct parse *parse)
{
    struct json_string string;
    int more, result;

    if (parse->metadata_seen)
        return json_failed(parse, json_problem(&parse->reader, "key appears twice"),
                           "__metadata__");
    parse->metadata_seen = true;
    if (json_peek(&parse->reader) == JSON_NULL) {
        result = json_skip_value(&parse->reader);
        return result == 0 ? 0 : json_failed(parse, result, "__metadata__");
    }
    parse->have_metadata = true;
    result = json_enter_object(&parse->reader);
    while (result == 0 && (more = json_next_key(&parse->reader, &string)) != 0) {
        struct metadata_entry entry;

        result = more < 0 ? more : copy_string(parse, string, &entry.key, &entry.key_length);
        if (result == 0)
            result = json_read_string(&parse->reader, &string);
        if (result == 0)
            result = copy_string(parse, string, &entry.value, &entry.value_length);
        if (result == 0)
            result = add_metadata(parse, entry);
    }
    return result == 0 ? 0 : json_failed(parse, result, "__metadata__");
}

static int parse_dtype(struct parse *parse, struct tensor *tensor)
{
    struct json_string string;
    char quoted[QUOTED];
    int result = json_read_string(&parse->reader, &string);

    if (result != 0)
        return tensor_json_failed(parse, result, tensor, "dtype");
    if (!dtype_parse(string.bytes, string.length, &tensor->dtype))
        return tensor_failed(parse, tensor, "dtype", "unknown element type \"%s\"",
                             error_quote(quoted, sizeof quoted, string.bytes, string.length));
    return 0;
}

static int parse_shape(struct parse *parse, struct tensor *tensor)
{
    uint64_t *shape;
    int more = 0, result = json_enter_array(&parse->reader);

    while (result == 0 && (more = json_next_element(&parse->reader)) > 0) {
        if (tensor->rank == MAX_RANK)
            return tensor_failed(parse, tensor, "shape", "more than %d dimensions", MAX_RANK);
        result = json_read_u64(&parse->reader, &parse->shape[tensor->rank++]);
    }
    if (result != 0 || more < 0)
        return tensor_json_failed(parse, result != 0 ? result : more, tensor, "shape");
    shape = arena_alloc_array(parse->arena, tensor->rank, sizeof *shape);
    if (shape == NULL)
        return error_no_memory(parse->error);
    memcpy(shape, parse->shape, tensor->rank * sizeof *shape);
    tensor->shape = shape;
    return 0;
}

static int parse_offsets(struct parse *parse, struct tensor *tensor)
{
    uint64_t offsets[2];
    int more, result = json_enter_array(&parse->reader);

    for (int i = 0; i < 2 && result == 0; i++) {
        more = json_next_element(&parse->reader);
        if (more == 0)
            more = json_problem(&parse->reader, "expected two integers");
        result = more < 0 ? more : json_read_u64(&parse->reader, &offsets[i]);
    }
    if (result == 0) {
        more = json_next_element(&parse->reader);
        result = more > 0 ? json_problem(&parse->reader, "expected two integers") : more;
    }
    if (result != 0)
        return tensor_json_failed(parse, result, tensor, "data_offsets");
    tensor->offset = offsets[0];
    tensor->length = offsets[1];
    return 0;
}

static const struct {
    const char *name;
    int (*parse)(struct parse *parse, struct tensor *tensor);
} fields[] = {{"dtype", parse_dtype}, {"shape", parse_shape}, {"data_offsets", parse_offsets}};
#define FIELD_COUNT (sizeof fields / sizeof fields[0])

static int parse_field(struct parse *parse, struct tensor *tensor, struct json_string key,
                       unsigned *seen)
{
    int result;

    for (unsigned i = 0; i < FIELD_COUNT; i++) {
        if (strlen(fields[i].name) != key.length ||
            memcmp(fields[i].name, key.bytes, key.length) != 0)
            continue;
        if (*seen & 1u << i)
            return tensor_json_failed(parse, json_problem(&parse->reader, "field appears twice"),
                                      tensor, fields[i].name);
        *seen |= 1u << i;
        return fields[i].parse(parse, tensor);
    }
    result = json_skip_value(&parse->reader);
    return result == 0 ? 0 : tensor_json_failed(parse, result, tensor, "unknown field");
}

static int parse_tensor_fields(struct parse *parse, struct tensor *tensor)
{
    struct json_string key;
    unsigned seen = 0;
    int more = json_enter_object(&parse->reader);

    if (more == 0)
        more = json_next_key(&parse->reader, &key);
    for (; more > 0; more = json_next_key(&parse->reader, &key)) {
        int result = parse_field(parse, tensor, key, &seen);

        if (result != 0)
            return result;
    }
    if (more < 0)
        return tensor_json_failed(parse, more, tensor, "");
    for (unsigned i = 0; i < FIELD_COUNT; i++)
        if (!(seen & 1u << i))
            return tensor_failed(parse, tensor, fields[i].name, "%s", "field is missing");
    return 0;
}

static int parse_tensor(struct parse *parse, struct json_string name)
{
    struct parsed_tensor *tensors =
        grown(parse->tensors, parse->tensor_count, &parse->tensor_capacity, sizeof *tensors);

    if (tensors == NULL)
        return error_no_memory(parse->error);
    parse->tensors = tensors;

    struct parsed_tensor *parsed = &tensors[parse->tensor_count];
    struct tensor *tensor = &parsed->tensor;

    *parsed = (struct parsed_tensor){.position = (uint32_t)parse->tensor_count};
    if (copy_string(parse, name, &tensor->name, &tensor->name_length) != 0)
        return error_no_memory(parse->error);
    switch (
        string_map_add(&parse->names, tensor->name, tensor->name_length, parsed->position, NULL)) {
    case 0:
        return error_set(parse->error, "duplicate-tensor", 0, "%s: header: %s: name appears twice",
                         parse->path, tensor_place((char[QUOTED + 32]){0}, tensor, ""));
    case 1:
        break;
    default:
        return error_no_memory(parse->error);
    }
    parse->tensor_count++;
    return parse_tensor_fields(parse, tensor);
}

static int parse_header(struct parse *parse)
{
    static const char metadata_name[] = "__metadata__";
    struct json_string key = {0};
    int more = json_enter_object(&parse->reader), result = 0;

    if (more == 0)
        more = json_next_key(&parse->reader, &key);
    for (; more > 0; more = json_next_key(&parse->reader, &key)) {
        if (key.length == sizeof metadata_name - 1 &&
            memcmp(key.bytes, metadata_name, key.length) == 0)
            result = parse_metadata(parse);
        else
            result = parse_tensor(parse, key);
        if (result != 0)
            return result;
    }
    result = more < 0 ? more : json_expect_end(&parse->reader);
    return result == 0 ? 0 : json_failed(parse, result, "top level");
}

/* ---- the layout --------------------------------------------------------------------------------
 */

static int compare_by_offset(const void *left, const void *right)
{
    const struct parsed_tensor *a = left, *b = right;

    if (a->tensor.offset != b->tensor.offset)
        return a->tensor.offset < b->tensor.offset ? -1 : 1;
    if (a->tensor.length != b->tensor.length)
        return a->tensor.length < b->tensor.length ? -1 : 1;
    return (a->position > b->position) - (a->position < b->position);
}

static void sort_by_offset(struct parsed_tensor *tensors, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (compare_by_offset(&tensors[i - 1], &tensors[i]) > 0) {
            qsort(tensors, count, sizeof *tensors, compare_by_offset);
            return;
        }
    }
}

/* Shape and type must give exactly the bytes between the offsets. */
static int check_size(struct parse *parse, const struct tensor *tensor)
{
    uint64_t count = 1, bits, bytes = tensor->length - tensor->offset;

    for (uint32_t i = 0; i < tensor->rank; i++)
        if (!checked_mul(count, tensor->shape[i], &count))
            return tensor_failed(parse, tensor, "shape",
                                 "the number of elements overflows at dimension %" PRIu64,
                                 tensor->shape[i]);
    if (!checked_mul(count, dtype_bits(tensor->dtype), &bits))
        return tensor_failed(parse, tensor, "shape",
                             "the size of %" PRIu64 " elements of %s overflows", count,
                             dtype_name(tensor->dtype));
    if (bits % 8 != 0)
        return tensor_failed(parse, tensor, "shape",
                             "%" PRIu64 " elements of %s do not fill whole bytes", count,
                             dtype_name(tensor->dtype));
    if (bits / 8 != bytes)
        return tensor_failed(
            parse, tensor, "data_offsets",
            "[%" PRIu64 ", %" PRIu64 "] hold %" PRIu64 " bytes, shape and dtype %s need %" PRIu64,
            tensor->offset, tensor->length, bytes, dtype_name(tensor->dtype), bits / 8);
    return 0;
}

/* No hole, no overlap, no byte too many or too few. */
static int check_layout(struct parse *parse, uint64_t buffer_size)
{
    uint64_t previous = 0;

    for (size_t i = 0; i < parse->tensor_count; i++) {
        const struct tensor *tensor = &parse->tensors[i].tensor;

        if (tensor->offset != previous)
            return tensor_failed(parse, tensor, "data_offsets",
                                 "begins at %" PRIu64 ", the tensor before it ends at %" PRIu64,
                                 tensor->offset, previous);
        if (tensor->length < tensor->offset)
            return tensor_failed(parse, tensor, "data_offsets",
                                 "ends at %" PRIu64 ", before it begins at %" PRIu64,
                                 tensor->length, tensor->offset);
        int result = check_size(parse, tensor);
        if (result != 0)
            return result;
        previous = tensor->length;
    }
    parse->layout_known = previous > buffer_size;
    if (previous > buffer_size)
        return error_set(parse->error, "truncated", 0,
                         "%s: data is truncated: the header describes %" PRIu64
                         " bytes, the file has %" PRIu64,
                         parse->path, previous, buffer_size);
    if (previous < buffer_size)
        return error_set(parse->error, "malformed-header", 0,
                         "%s: the file has %" PRIu64
                         " bytes of data, the header describes %" PRIu64,
                         parse->path, buffer_size, previous);
    return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int deliver(struct parse *parse, uint64_t data_offset, struct tensor_set *out)
{
    struct tensor_set set = {.tensor_count = parse->tensor_count, .data_offset = data_offset};

    set.tensors = arena_alloc_array(parse->arena, set.tensor_count, sizeof *set.tensors);
    if (set.tensors == NULL)
        return error_no_memory(parse->error);
    for (size_t i = 0; i < set.tensor_count; i++) {
        set.tensors[i] = parse->tensors[i].tensor;
        set.tensors[i].length -= set.tensors[i].offset;
        set.tensors[i].offset += data_offset;
    }
    if (parse->have_metadata) {
        set.metadata_count = parse->metadata_count;
        set.metadata = arena_alloc_array(parse->arena, set.metadata_count, sizeof *set.metadata);
        if (set.metadata == NULL)
            return error_no_memory(parse->error);
        if (set.metadata_count > 0)
            memcpy(set.metadata, parse->metadata, set.metadata_count * sizeof *set.metadata);
    }
    *out = set;
    return 0;
}

int safetensors_parse(const char *json, size_t length, uint64_t file_size, const char *path,
                      struct arena *arena, struct tensor_set *out, struct unshard_error *error)
{
    struct parse *parse;
    int result;

    if (length > SAFETENSORS_MAX_HEADER)
        return error_set(error, "header-too-large", 0,
                         "%s: header length %zu is above the limit of %" PRIu64, path, length,
                         SAFETENSORS_MAX_HEADER);
    if (file_size < 8 || length > file_size - 8)
        return error_set(error, "truncated", 0,
                         "%s: header length %zu does not fit in a file of %" PRIu64 " bytes", path,
                         length, file_size);
    parse = calloc(1, sizeof *parse);
    if (parse == NULL)
        return error_no_memory(error);
    parse->path = path;
    parse->arena = arena;
    parse->error = error;
    json_reader_init(&parse->reader, json, length);
    result = parse_header(parse);
    if (result == 0) {
        sort_by_offset(parse->tensors, parse->tensor_count);
        result = check_layout(parse, file_size - 8 - length);
    }
    if (result == 0)
        result = deliver(parse, 8 + (uint64_t)length, out);
    else if (parse->layout_known && deliver(parse, 8 + (uint64_t)length, out) != 0)
        result = -ENOMEM;
    json_reader_free(&parse->reader);
    string_map_free(&parse->names);
    string_map_free(&parse->keys);
    free(parse->tensors);
    free(parse->metadata);
    free(parse);
    return result;
}

/* The value of N, checked against the limit and the file. */
static int read_header_length(const struct byte_reader *reader, const char *path, uint64_t *length,
                              struct unshard_error *error)
{
    unsigned char head[8];
    uint64_t value = 0;
    int result;

    if (reader->size < sizeof head && foreign_content(reader, path, WANTED, error) != 0)
        return -EINVAL;
    if (reader->size < sizeof head)
        return error_set(error, "truncated", 0,
                         "%s: file of %" PRIu64 " bytes is too short for the header length", path,
                         reader->size);
    result = reader->read(reader->context, 0, head, sizeof head);
    if (result != 0)
        return error_set_at(error, "read-error", -result, 0,
                            "%s: cannot read the header length: %s", path,
                            strerrordesc_np(-result));
    for (int i = 7; i >= 0; i--)
        value = value << 8 | head[i];
    if ((value > SAFETENSORS_MAX_HEADER || value > reader->size - 8) &&
        foreign_content(reader, path, WANTED, error) != 0)
        return -EINVAL;
    if (value > SAFETENSORS_MAX_HEADER)
        return error_set_at(error, "header-too-large", 0, 0,
                            "%s: header length %" PRIu64 " is above the limit of %" PRIu64, path,
                            value, SAFETENSORS_MAX_HEADER);
    if (value > reader->size - 8)
        return error_set_at(error, "truncated", 0, 0,
                            "%s: header length %" PRIu64 " does not fit in a file of %" PRIu64
                            " bytes",
                            path, value, reader->size);
    *length = value;
    return 0;
}

int safetensors_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                     struct tensor_set *out, struct unshard_error *error)
{
    uint64_t length = 0;
    char *json;
    int result = read_header_length(reader, path, &length, error);

    if (result != 0)
        return result;
    if (!arena_charge(arena, length))
        return error_no_memory(error);
    json = malloc(length + 1);
    if (json == NULL) {
        arena_discharge(arena, length);
        return error_no_memory(error);
    }
    result = length == 0 ? 0 : reader->read(reader->context, 8, json, length);
    if (result != 0)
        result = error_set_at(error, "read-error", -result, 8, "%s: cannot read the header: %s",
                              path, strerrordesc_np(-result));
    else
        result = safetensors_parse(json, length, reader->size, path, arena, out, error);
    free(json);
    arena_discharge(arena, length);
    return result;
}
