/* SPDX-License-Identifier: MIT */
#include "formats/dcp/dcp_metadata.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "base/utf8.h"
#include "formats/index_file.h"
#include "formats/torch/pickle_machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct dcp_parse {
    const char *path;
    struct arena *arena;
    struct arena scratch; /* values of the pickle, keys of the maps */
    struct unshard_error *error;
    struct dcp_metadata *out;
    struct string_map names;  /* tensor name -> number */
    struct string_map chunks; /* tensor number and offsets -> number in parts */
    struct string_map files;
    struct dcp_part *parts; /* malloc'd; empty ones too; file is NO_PLACE until it is known */
    size_t part_count, part_capacity, chunk_count, most_chunks;
    size_t file_capacity;
};

#define NO_PLACE UINT32_MAX
#define MAX_FIELDS 32U
/* A list of chunks that many tensors share would be read for each of them: every chunk of a real
 * one has bytes of its own, and more than these. */
#define LEAST_CHUNK 16U
/* A name is looked up for each chunk, and may be shared as well. */
#define MAX_NAME_BYTES 16384U

#define malformed(parse, format, ...) \
    error_set((parse)->error, "malformed-pickle", 0, "%s: " format, (parse)->path, __VA_ARGS__)
#define unsupported(parse, format, ...)                                                    \
    error_set((parse)->error, "unsupported-pickle", ENOTSUP, "%s: " format, (parse)->path, \
              __VA_ARGS__)

static const char *quote(char out[96], const struct dcp_tensor *tensor)
{
    return error_quote(out, 96, tensor->name, tensor->name_length);
}

/* A field of an object's state. No class has so many: a large dict that is the state of many
 * objects would be searched over and over. */
static const struct pickle_value *field(const struct pickle_value *object, const char *name)
{
    const struct pickle_value *state = object->call->state;
    if (state != NULL && state->kind == PICKLE_DICT && state->items->count > 2 * MAX_FIELDS)
        return NULL;
    return pickle_dict_get(state, name);
}

/* `rank` numbers in the arena; -EINVAL when the value is something else. */
static int read_numbers(struct dcp_parse *parse, const struct pickle_value *value, uint32_t *rank,
                        const uint64_t **out)
{
    uint64_t numbers[DCP_MAX_RANK];
    uint32_t count = 0;
    if (!pickle_read_sizes(value, numbers, DCP_MAX_RANK, &count))
        return -EINVAL;
    uint64_t *kept = arena_alloc_array(parse->arena, count, sizeof *kept);
    if (kept == NULL)
        return error_no_memory(parse->error);
    memcpy(kept, numbers, count * sizeof *kept);
    *out = kept;
    *rank = count;
    return 0;
}

/* ---- tensors and their chunks ------------------------------------------------------------------
 */

static int read_properties(struct dcp_parse *parse, const struct pickle_value *object,
                           struct dcp_tensor *tensor)
{
    char quoted[96];
    const struct pickle_value *state = object == NULL ? NULL : object->call->state;
    const struct pickle_value *dtype = pickle_tuple_item(state, 0),
                              *layout = pickle_tuple_item(state, 1);
    if (dtype == NULL && object != NULL) { /* before it had a state of its own */
        dtype = field(object, "dtype");
        layout = field(object, "layout");
    }
    if (dtype == NULL || dtype->kind != PICKLE_GLOBAL)
        return malformed(parse, "tensor \"%s\" has no dtype", quote(quoted, tensor));
    if (dtype->global->role != PICKLE_ROLE_DTYPE)
        return unsupported(parse, "tensor \"%s\": %s has no counterpart in safetensors",
                           quote(quoted, tensor), dtype->global->name);
    if (layout != NULL && layout->kind == PICKLE_CALL &&
        !pickle_is_string(pickle_tuple_item(layout->call->arguments, 0), "torch.strided"))
        return unsupported(parse, "tensor \"%s\" is not strided", quote(quoted, tensor));
    tensor->dtype = dtype->global->dtype;
    return 0;
}

static bool is_inside(const struct dcp_part *part)
{
    const struct dcp_tensor *tensor = part->tensor;
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (!range_within(part->offsets[i], part->sizes[i], tensor->shape[i]))
            return false;
    return true;
}

static bool is_empty(const struct dcp_part *part)
{
    for (uint32_t i = 0; i < part->tensor->rank; i++)
        if (part->sizes[i] == 0)
            return true;
    return false;
}

/* Numbers of tensor and offsets as one key; in the arena. */
static const char *chunk_key(struct dcp_parse *parse, const struct dcp_tensor *tensor,
                             const uint64_t *offsets, size_t *length)
{
    uint64_t number = (uint64_t)(tensor - parse->out->tensors);
    *length = (tensor->rank + (size_t)1) * sizeof number;
    char *key = arena_alloc(&parse->scratch, *length);
    if (key != NULL) {
        memcpy(key, &number, sizeof number);
        if (offsets != NULL)
            memcpy(key + sizeof number, offsets, tensor->rank * sizeof number);
    }
    return key;
}

/* Of a chunk and an empty one at the same place the one with bytes counts. */
static int add_chunk(struct dcp_parse *parse, const struct dcp_part *part)
{
    char quoted[96];
    size_t length;
    uint32_t existing;
    const char *key = chunk_key(parse, part->tensor, part->offsets, &length);
    if (key == NULL)
        return error_no_memory(parse->error);
    int added = string_map_add(&parse->chunks, key, length, (uint32_t)parse->part_count, &existing);
    if (added < 0)
        return error_no_memory(parse->error);
    if (added == 0 && !is_empty(part) && !is_empty(&parse->parts[existing]))
        return malformed(parse, "tensor \"%s\" has two chunks at one place",
                         quote(quoted, part->tensor));
    if (added == 0) {
        if (!is_empty(part))
            parse->parts[existing] = *part;
        return 0;
    }
    if (parse->part_count == parse->part_capacity) {
        size_t capacity = parse->part_capacity == 0 ? 64 : parse->part_capacity * 2;
        struct dcp_part *grown = reallocarray(parse->parts, capacity, sizeof *grown);
        if (grown == NULL)
            return error_no_memory(parse->error);
        parse->parts = grown;
        parse->part_capacity = capacity;
    }
    parse->parts[parse->part_count++] = *part;
    return 0;
}

static int read_chunk(struct dcp_parse *parse, const struct dcp_tensor *tensor,
                      const struct pickle_value *value)
{
    char quoted[96];
    uint32_t offsets = 0, sizes = 0;
    struct dcp_part part = {.tensor = tensor, .file = NO_PLACE};
    int result = -EINVAL;
    if (++parse->chunk_count > parse->most_chunks)
        return malformed(parse, "tensor \"%s\": more chunks than the file has room for",
                         quote(quoted, tensor));
    if (pickle_is_object(value, PICKLE_ROLE_CHUNK)) {
        result = read_numbers(parse, field(value, "offsets"), &offsets, &part.offsets);
        if (result == 0)
            result = read_numbers(parse, field(value, "sizes"), &sizes, &part.sizes);
    }
    if (result == -ENOMEM)
        return result;
    if (result != 0 || offsets != tensor->rank || sizes != tensor->rank)
        return malformed(parse, "tensor \"%s\" has a chunk without %u offsets and sizes",
                         quote(quoted, tensor), tensor->rank);
    if (!is_inside(&part))
        return malformed(parse, "tensor \"%s\" has a chunk that is not inside of it",
                         quote(quoted, tensor));
    return add_chunk(parse, &part);
}

static int set_name(struct dcp_parse *parse, const struct pickle_value *key,
                    struct dcp_tensor *tensor)
{
    char quoted[96];
    if (key->bytes > MAX_NAME_BYTES)
        return unsupported(parse, "tensor \"%s\": the name has %u bytes, at most %u are possible",
                           error_quote(quoted, sizeof quoted, key->string, key->bytes), key->bytes,
                           MAX_NAME_BYTES);
    for (size_t i = 0, length; i < key->bytes; i += length) {
        length = utf8_sequence((const unsigned char *)key->string + i, key->bytes - i);
        if (length == 0)
            return unsupported(parse, "tensor \"%s\": the name is no UTF-8",
                               error_quote(quoted, sizeof quoted, key->string, key->bytes));
    }
    tensor->name = arena_copy_string(parse->arena, key->string, key->bytes);
    tensor->name_length = key->bytes;
    if (tensor->name == NULL)
        return error_no_memory(parse->error);
    if (pickle_is_string(key, "__metadata__"))
        return unsupported(parse, "tensor \"%s\": safetensors cannot have this name",
                           quote(quoted, tensor));
    int added = string_map_add(&parse->names, tensor->name, tensor->name_length,
                               (uint32_t)(tensor - parse->out->tensors), NULL);
    if (added < 0)
        return error_no_memory(parse->error);
    if (added == 0)
        return malformed(parse, "tensor \"%s\" is there twice", quote(quoted, tensor));
    return 0;
}

static int read_tensor(struct dcp_parse *parse, const struct pickle_value *key,
                       const struct pickle_value *value)
{
    char quoted[96];
    struct dcp_tensor *tensor = &parse->out->tensors[parse->out->tensor_count];
    const struct pickle_value *properties = field(value, "properties"),
                              *chunks = field(value, "chunks");
    if (key->kind != PICKLE_STRING)
        return malformed(parse, "a tensor is called by a %s", pickle_kind_name(key->kind));
    int result = set_name(parse, key, tensor);
    if (result != 0)
        return result;
    if (!pickle_is_object(properties, PICKLE_ROLE_PROPERTIES))
        properties = NULL;
    result = read_properties(parse, properties, tensor);
    if (result != 0)
        return result;
    result = read_numbers(parse, field(value, "size"), &tensor->rank, &tensor->shape);
    if (result == -EINVAL || chunks == NULL || chunks->kind != PICKLE_LIST)
        return malformed(parse, "tensor \"%s\" has no size and list of chunks",
                         quote(quoted, tensor));
    parse->out->tensor_count++;
    for (uint32_t i = 0; i < chunks->items->count && result == 0; i++)
        result = read_chunk(parse, tensor, chunks->items->values[i]);
    return result;
}

static int read_tensors(struct dcp_parse *parse, const struct pickle_value *metadata)
{
    const struct pickle_value *all = field(metadata, "state_dict_metadata");
    if (all == NULL || all->kind != PICKLE_DICT)
        return malformed(parse, "%s", "it has no state_dict_metadata");
    parse->out->tensors =
        arena_alloc_array(parse->arena, all->items->count / 2, sizeof *parse->out->tensors);
    if (parse->out->tensors == NULL)
        return error_no_memory(parse->error);
    for (uint32_t i = 0; i + 1 < all->items->count; i += 2) {
        const struct pickle_value *value = all->items->values[i + 1];
        int result = 0;
        if (pickle_is_object(value, PICKLE_ROLE_TENSOR_METADATA))
            result = read_tensor(parse, all->items->values[i], value);
        else if (pickle_is_object(value, PICKLE_ROLE_BYTES_METADATA))
            parse->out->other_count++;
        else
            result = malformed(parse, "an entry of state_dict_metadata is a %s",
                               pickle_kind_name(value->kind));
        if (result != 0)
            return result;
    }
    return 0;
}

/* ---- places ------------------------------------------------------------------------------------
 */

static int read_file(struct dcp_parse *parse, const struct pickle_value *value, uint32_t *out)
{
    char quoted[96];
    struct dcp_metadata *metadata = parse->out;
    if (value == NULL || value->kind != PICKLE_STRING)
        return malformed(parse, "%s", "relative_path is no string");
    const char *problem = index_file_name_problem(value->string, value->bytes);
    if (problem != NULL)
        return malformed(parse, "relative_path \"%s\" %s",
                         error_quote(quoted, sizeof quoted, value->string, value->bytes), problem);
    if (string_map_find(&parse->files, value->string, value->bytes, out))
        return 0;
    if (metadata->file_count == parse->file_capacity) {
        size_t capacity = parse->file_capacity == 0 ? 16 : parse->file_capacity * 2;
        const char **grown = arena_alloc_array(parse->arena, capacity, sizeof *grown);
        if (grown == NULL)
            return error_no_memory(parse->error);
        if (metadata->file_count > 0)
            memcpy(grown, metadata->files, metadata->file_count * sizeof *grown);
        metadata->files = grown;
        parse->file_capacity = capacity;
    }
    const char *name = arena_copy_string(parse->arena, value->string, value->bytes);
    *out = metadata->file_count;
    if (name == NULL || string_map_add(&parse->files, name, value->bytes, *out, NULL) < 0)
        return error_no_memory(parse->error);
    metadata->files[metadata->file_count++] = name;
    return 0;
}

/* The chunk of a tensor that an index of storage_data is about; NULL: of something else. */
static int find_chunk(struct dcp_parse *parse, const struct pickle_value *index,
                      struct dcp_part **out)
{
    char quoted[96];
    uint32_t number, rank = 0;
    const uint64_t *offsets = NULL;
    size_t length;
    const struct pickle_value *name = field(index, "fqn"), *offset = field(index, "offset");
    *out = NULL;
    if (name == NULL || name->kind != PICKLE_STRING)
        return malformed(parse, "%s", "an index of storage_data has no name");
    if (name->bytes > MAX_NAME_BYTES ||
        !string_map_find(&parse->names, name->string, name->bytes, &number))
        return 0;
    const struct dcp_tensor *tensor = &parse->out->tensors[number];
    static const uint64_t zeros[DCP_MAX_RANK];
    int result = -EINVAL;
    if (offset != NULL && offset->kind == PICKLE_NONE) { /* the only chunk of a whole tensor */
        offsets = zeros;
        rank = tensor->rank;
        result = 0;
    } else if (offset != NULL) {
        result = read_numbers(parse, offset, &rank, &offsets);
    }
    if (result == -ENOMEM)
        return result;
    if (result != 0 || rank != tensor->rank)
        return malformed(parse, "tensor \"%s\" is stored without %u offsets", quote(quoted, tensor),
                         tensor->rank);
    const char *key = chunk_key(parse, tensor, offsets, &length);
    if (key == NULL)
        return error_no_memory(parse->error);
    if (!string_map_find(&parse->chunks, key, length, &number))
        return malformed(parse, "tensor \"%s\" is stored in a chunk that it does not have",
                         quote(quoted, tensor));
    *out = &parse->parts[number];
    return 0;
}

static bool read_unsigned(const struct pickle_value *value, uint64_t *out)
{
    if (value == NULL || value->kind != PICKLE_INT || value->integer < 0)
        return false;
    *out = (uint64_t)value->integer;
    return true;
}

static int read_place(struct dcp_parse *parse, const struct pickle_value *index,
                      const struct pickle_value *info)
{
    char quoted[96];
    struct dcp_part *part;
    uint32_t file = 0;
    if (!pickle_is_object(index, PICKLE_ROLE_METADATA_INDEX) ||
        !pickle_is_object(info, PICKLE_ROLE_STORAGE_INFO))
        return malformed(parse, "%s", "an entry of storage_data is none");
    int result = read_file(parse, field(info, "relative_path"), &file);
    if (result == 0)
        result = find_chunk(parse, index, &part);
    if (result != 0 || part == NULL || is_empty(part))
        return result;
    const struct pickle_value *transforms = field(info, "transform_descriptors");
    quote(quoted, part->tensor);
    if (transforms != NULL && transforms->kind != PICKLE_NONE &&
        !(transforms->kind == PICKLE_LIST && transforms->items->count == 0))
        return unsupported(parse, "tensor \"%s\" is stored in a transformed form", quoted);
    if (part->file != NO_PLACE)
        return malformed(parse, "tensor \"%s\": a chunk is stored twice", quoted);
    if (!read_unsigned(field(info, "offset"), &part->offset) ||
        !read_unsigned(field(info, "length"), &part->length))
        return malformed(parse, "tensor \"%s\" is stored at no offset and length", quoted);
    part->file = file;
    return 0;
}

static int read_places(struct dcp_parse *parse, const struct pickle_value *metadata)
{
    const struct pickle_value *all = field(metadata, "storage_data");
    char quoted[96];
    if (all == NULL || all->kind != PICKLE_DICT)
        return malformed(parse, "%s", "it has no storage_data");
    for (uint32_t i = 0; i + 1 < all->items->count; i += 2) {
        int result = read_place(parse, all->items->values[i], all->items->values[i + 1]);
        if (result != 0)
            return result;
    }
    for (size_t i = 0; i < parse->part_count; i++)
        if (parse->parts[i].file == NO_PLACE && !is_empty(&parse->parts[i]))
            return malformed(parse, "tensor \"%s\": a chunk is stored nowhere",
                             quote(quoted, parse->parts[i].tensor));
    return 0;
}

/* ---- the result --------------------------------------------------------------------------------
 */

static int compare_files(const void *left, const void *right, void *context)
{
    const char *const *files = context;
    return strcmp(files[*(const uint32_t *)left], files[*(const uint32_t *)right]);
}

/* Files in byte order, whatever the order of the dict. */
static int sort_files(struct dcp_parse *parse)
{
    struct dcp_metadata *out = parse->out;
    uint32_t *order = calloc(2U * (size_t)out->file_count + 1, sizeof *order);
    const char **sorted = arena_alloc_array(parse->arena, out->file_count, sizeof *sorted);
    if (order == NULL || sorted == NULL) {
        free(order);
        return error_no_memory(parse->error);
    }
    uint32_t *number = order + out->file_count;
    for (uint32_t i = 0; i < out->file_count; i++)
        order[i] = i;
    qsort_r(order, out->file_count, sizeof *order, compare_files, out->files);
    for (uint32_t i = 0; i < out->file_count; i++) {
        sorted[i] = out->files[order[i]];
        number[order[i]] = i;
    }
    for (size_t i = 0; i < parse->part_count; i++)
        if (parse->parts[i].file != NO_PLACE)
            parse->parts[i].file = number[parse->parts[i].file];
    out->files = sorted;
    free(order);
    return 0;
}

static int compare_places(const void *left, const void *right)
{
    const struct dcp_part *a = left, *b = right;
    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static int check_places(struct dcp_parse *parse)
{
    const struct dcp_metadata *out = parse->out;
    char quoted[96];
    uint64_t end;
    for (size_t i = 0; i < out->part_count; i++) {
        const struct dcp_part *part = &out->parts[i];
        if (!checked_add(part->offset, part->length, &end) || end > INT64_MAX ||
            (i + 1 < out->part_count && part[1].file == part->file && part[1].offset < end))
            return malformed(parse,
                             "tensor \"%s\": a chunk at %" PRIu64 " overlaps with another or ends "
                             "where no file does",
                             quote(quoted, part->tensor), part->offset);
    }
    return 0;
}

/* A tensor with elements but without any chunk would be left out without a word. */
static int check_tensors(struct dcp_parse *parse)
{
    const struct dcp_metadata *out = parse->out;
    char quoted[96];
    bool *stored = calloc(out->tensor_count + 1, sizeof *stored);
    if (stored == NULL)
        return error_no_memory(parse->error);
    for (size_t i = 0; i < out->part_count; i++)
        stored[out->parts[i].tensor - out->tensors] = true;
    int result = 0;
    for (size_t i = 0; i < out->tensor_count && result == 0; i++) {
        bool elements = true;
        for (uint32_t k = 0; k < out->tensors[i].rank; k++)
            elements = elements && out->tensors[i].shape[k] > 0;
        if (elements && !stored[i])
            result =
                malformed(parse, "tensor \"%s\" has no chunk", quote(quoted, &out->tensors[i]));
    }
    free(stored);
    return result;
}

static int deliver(struct dcp_parse *parse)
{
    struct dcp_metadata *out = parse->out;
    int result = sort_files(parse);
    if (result != 0)
        return result;
    out->parts = arena_alloc_array(parse->arena, parse->part_count, sizeof *out->parts);
    out->first_part =
        arena_alloc_array(parse->arena, out->file_count + (size_t)1, sizeof *out->first_part);
    if (out->parts == NULL || out->first_part == NULL)
        return error_no_memory(parse->error);
    for (size_t i = 0; i < parse->part_count; i++)
        if (!is_empty(&parse->parts[i]))
            out->parts[out->part_count++] = parse->parts[i];
    qsort(out->parts, out->part_count, sizeof *out->parts, compare_places);
    for (size_t file = 0, i = 0; file <= out->file_count; file++) {
        while (i < out->part_count && out->parts[i].file < file)
            i++;
        out->first_part[file] = i;
    }
    result = check_places(parse);
    return result == 0 ? check_tensors(parse) : result;
}

int dcp_metadata_parse(const char *bytes, size_t length, const char *path, struct arena *arena,
                       struct dcp_metadata *out, struct unshard_error *error)
{
    struct dcp_parse parse = {.path = path,
                              .arena = arena,
                              .scratch = arena_beside(arena),
                              .most_chunks = length / LEAST_CHUNK,
                              .error = error,
                              .out = out};
    struct pickle_input input = {
        .bytes = bytes, .length = length, .path = path, .distributed = true};
    struct pickle_result pickle;
    *out = (struct dcp_metadata){0};
    int result = pickle_read(&input, &parse.scratch, &pickle, error);
    if (result == 0 && !pickle_is_object(pickle.root, PICKLE_ROLE_METADATA))
        result =
            malformed(&parse, "it holds a %s and no metadata", pickle_kind_name(pickle.root->kind));
    if (result == 0 && pickle.consumed != length)
        result = malformed(&parse, "it goes on after its pickle, at byte %zu", pickle.consumed);
    if (result == 0)
        result = read_tensors(&parse, pickle.root);
    if (result == 0)
        result = read_places(&parse, pickle.root);
    if (result == 0)
        result = deliver(&parse);
    string_map_free(&parse.names);
    string_map_free(&parse.chunks);
    string_map_free(&parse.files);
    free(parse.parts);
    arena_free_beside(&parse.scratch, arena);
    return result;
}
