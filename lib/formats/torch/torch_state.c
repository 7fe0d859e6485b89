/* SPDX-License-Identifier: MIT */
#include "formats/torch/torch_state.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "base/utf8.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NESTING 64
/* Tied weights share bytes; a file that claims much more than its size is up to something. */
#define MAX_GROWTH 64U
#define GROWTH_FREE (UINT64_C(1) << 30)

struct state_reader {
    const char *path;
    struct arena *arena;
    struct unshard_error *error;
    struct tensor_set *set;
    struct string_map names;
    uint64_t bytes; /* of all tensors so far */
};

static bool is_tensor(const struct pickle_value *value)
{
    if (value->kind != PICKLE_CALL)
        return false;
    switch (value->call->global->role) {
    case PICKLE_ROLE_REBUILD_TENSOR:
    case PICKLE_ROLE_REBUILD_TENSOR_V2:
    case PICKLE_ROLE_REBUILD_TENSOR_V3:
    case PICKLE_ROLE_REBUILD_PARAMETER:
    case PICKLE_ROLE_REBUILD_FROM_TYPE:
    case PICKLE_ROLE_OTHER_TENSOR:
        return true;
    default:
        return false;
    }
}

/* A tensor is somewhere in a value. Every value is looked at once, so that a pickle in which the
 * same one appears over and over takes no longer than it is long. Too deep counts as yes. */
static bool holds_tensor(struct pickle_value *value, unsigned depth)
{
    if (value->visited)
        return false;
    if (is_tensor(value) || depth == MAX_NESTING)
        return true;
    value->visited = true;
    if (value->kind == PICKLE_OBJECT || value->kind == PICKLE_CALL)
        return holds_tensor(value->call->arguments, depth + 1) ||
               (value->call->state != NULL && holds_tensor(value->call->state, depth + 1));
    if (value->kind < PICKLE_TUPLE || value->kind > PICKLE_DICT)
        return false;
    for (uint32_t i = 0; i < value->items->count; i++)
        if (holds_tensor(value->items->values[i], depth + 1))
            return true;
    return false;
}

static int not_a_state_dict(struct state_reader *reader, const char *why)
{
    return error_set(reader->error, "not-a-state-dict", ENOTSUP, "%s: %s", reader->path, why);
}

/* The name of a tensor as safetensors can have it. */
static int set_name(struct state_reader *reader, const struct pickle_value *key,
                    struct tensor *tensor)
{
    char quoted[96];
    static const char reserved[] = "__metadata__";
    error_quote(quoted, sizeof quoted, key->string, key->bytes);
    for (size_t i = 0, length; i < key->bytes; i += length) {
        length = utf8_sequence((const unsigned char *)key->string + i, key->bytes - i);
        if (length == 0)
            return error_set(reader->error, "unsupported-pickle", ENOTSUP,
                             "%s: tensor \"%s\": the name is no UTF-8", reader->path, quoted);
    }
    if (pickle_is_string(key, reserved))
        return error_set(reader->error, "unsupported-pickle", ENOTSUP,
                         "%s: tensor \"%s\": safetensors cannot have this name", reader->path,
                         quoted);
    tensor->name = arena_copy_string(reader->arena, key->string, key->bytes);
    tensor->name_length = key->bytes;
    if (tensor->name == NULL)
        return error_no_memory(reader->error);
    int added = string_map_add(&reader->names, tensor->name, tensor->name_length, 0, NULL);
    if (added < 0)
        return error_no_memory(reader->error);
    if (added == 0)
        return error_set(reader->error, "duplicate-tensor", 0, "%s: tensor \"%s\" is there twice",
                         reader->path, quoted);
    return 0;
}

static int add_tensor(struct state_reader *reader, const struct pickle_value *key,
                      const struct pickle_value *value, uint64_t file_size)
{
    struct tensor *tensor = &reader->set->tensors[reader->set->tensor_count];
    char quoted[96];
    if (key->kind != PICKLE_STRING)
        return not_a_state_dict(reader, "a tensor has no name but another key");
    int result = set_name(reader, key, tensor);
    if (result == 0)
        result = torch_state_tensor(value, reader->path,
                                    error_quote(quoted, sizeof quoted, key->string, key->bytes),
                                    reader->arena, tensor, reader->error);
    if (result != 0)
        return result;
    reader->set->tensor_count++;
    if (!checked_add(reader->bytes, tensor->length, &reader->bytes) ||
        (reader->bytes > GROWTH_FREE && reader->bytes / MAX_GROWTH > file_size))
        return error_set(reader->error, "malformed-pickle", 0,
                         "%s: its tensors would have more than %u times the bytes of the file",
                         reader->path, MAX_GROWTH);
    return 0;
}

/* Takes off what state dicts are wrapped in: an entry "state_dict", or an only entry. */
static int unwrap(struct state_reader *reader, const struct pickle_value **dict)
{
    const struct pickle_value *inner = pickle_dict_get(*dict, "state_dict");
    char name[96] = "state_dict", note[160];
    if (inner == NULL || inner->kind != PICKLE_DICT) {
        const struct pickle_items *items = (*dict)->items;
        if (items->count != 2 || items->values[1]->kind != PICKLE_DICT)
            return 0;
        inner = items->values[1];
        if (items->values[0]->kind == PICKLE_STRING)
            error_quote(name, sizeof name, items->values[0]->string, items->values[0]->bytes);
    }
    *dict = inner;
    int length = snprintf(note, sizeof note, "the tensors are those of its entry '%s'", name);
    reader->set->note = arena_copy_string(reader->arena, note, (size_t)length);
    return reader->set->note == NULL ? error_no_memory(reader->error) : 0;
}

static int read_dict(struct state_reader *reader, const struct pickle_value *dict,
                     uint64_t file_size)
{
    const struct pickle_items *items = dict->items;
    char quoted[96], why[192];
    reader->set->tensors =
        arena_alloc_array(reader->arena, items->count / 2, sizeof *reader->set->tensors);
    if (reader->set->tensors == NULL)
        return error_no_memory(reader->error);
    for (uint32_t i = 0; i + 1 < items->count; i += 2) {
        const struct pickle_value *key = items->values[i];
        if (is_tensor(items->values[i + 1])) {
            int result = add_tensor(reader, key, items->values[i + 1], file_size);
            if (result != 0)
                return result;
        } else if (holds_tensor(items->values[i + 1], 0)) {
            if (key->kind == PICKLE_STRING)
                error_quote(quoted, sizeof quoted, key->string, key->bytes);
            snprintf(why, sizeof why, "its entry \"%s\" is no tensor and holds some",
                     key->kind == PICKLE_STRING ? quoted : pickle_kind_name(key->kind));
            return not_a_state_dict(reader, why);
        }
    }
    return reader->set->tensor_count > 0 ? 0 : not_a_state_dict(reader, "it holds no tensor");
}

static uint64_t first_byte(const struct tensor *tensor)
{
    return tensor->gather != NULL ? tensor->gather->boxes[0].source : tensor->offset;
}

static int compare_by_place(const void *left, const void *right)
{
    const struct tensor *a = left, *b = right;
    if (first_byte(a) != first_byte(b))
        return first_byte(a) < first_byte(b) ? -1 : 1;
    uint32_t common = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order = memcmp(a->name, b->name, common);
    return order != 0 ? order
                      : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

int torch_state_read(const struct pickle_result *pickle, const char *path, uint64_t file_size,
                     struct arena *arena, struct tensor_set *out, struct unshard_error *error)
{
    static struct metadata_entry format = {"format", "pt", 6, 2};
    struct tensor_set set = {.metadata = &format, .metadata_count = 1};
    struct state_reader reader = {.path = path, .arena = arena, .error = error, .set = &set};
    const struct pickle_value *dict = pickle->root;
    if (dict->kind != PICKLE_DICT)
        return not_a_state_dict(&reader, "it holds something else than a dict of tensors");
    int result = unwrap(&reader, &dict);
    if (result == 0)
        result = read_dict(&reader, dict, file_size);
    string_map_free(&reader.names);
    if (result != 0)
        return result;
    qsort(set.tensors, set.tensor_count, sizeof *set.tensors, compare_by_place);
    *out = set;
    return 0;
}
