/* SPDX-License-Identifier: MIT */
#include "formats/index_file.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/string_map.h"
#include "formats/foreign_content.h"
#include "json/json_reader.h"
#include "json/json_string.h"

#define QUOTED 96

struct parse {
    struct json_reader reader;
    const char *path, *index_name;
    struct arena *arena;
    struct unshard_error *error;
    struct index_entry *entries;
    size_t entry_count, entry_capacity;
    const char **files;
    size_t file_count, file_capacity;
    const char *metadata_json;
    size_t metadata_json_length;
    bool have_weight_map;
    struct string_map tensors, file_numbers;
};

static int json_failed(struct parse *parse, int result, const char *where)
{
    if (result == -ENOMEM)
        return error_no_memory(parse->error);
    return error_set_at(parse->error, "malformed-index", 0, parse->reader.problem_offset,
                        "%s: %s: %s at byte %zu", parse->path, where,
                        parse->reader.problem != NULL ? parse->reader.problem : "malformed",
                        parse->reader.problem_offset);
}

static bool grow(void **array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;

    size_t larger = *capacity == 0 ? 64 : *capacity * 2;
    void *result = reallocarray(*array, larger, size);

    if (result == NULL)
        return false;
    *array = result;
    *capacity = larger;
    return true;
}

/* ---- shard names -------------------------------------------------------------------------------
 */

static const char *check_component(const char *name, size_t length)
{
    if (length == 0)
        return "is absolute or has an empty component";
    if ((length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
        return "has a component \".\" or \"..\"";
    if (length > NAME_MAX)
        return "has a component longer than 255 bytes";
    return NULL;
}

/* Why a name must not be opened below the directory of the index; NULL: it may. */
const char *index_file_name_problem(const char *name, size_t length)
{
    size_t first = 0;

    if (length == 0)
        return "is empty";
    if (length >= PATH_MAX)
        return "is too long";
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '\\')
            return "holds a control byte or a backslash";
    for (size_t i = 0; i <= length; i++) {
        if (i < length && name[i] != '/')
            continue;
        const char *problem = check_component(name + first, i - first);
        if (problem != NULL)
            return problem;
        first = i + 1;
    }
    return NULL;
}

static const char *check_file_name(const struct parse *parse, const char *name, size_t length)
{
    const char *problem = index_file_name_problem(name, length);

    if (problem != NULL)
        return problem;
    if (parse->index_name != NULL && strlen(parse->index_name) == length &&
        memcmp(parse->index_name, name, length) == 0)
        return "is the index itself";
    return NULL;
}

static int bad_file_name(struct parse *parse, const struct index_entry *entry, const char *name,
                         size_t length, const char *problem)
{
    char tensor[QUOTED], file[QUOTED];

    return error_set(parse->error, "unsafe-name", 0, "%s: weight_map: \"%s\": file name \"%s\" %s",
                     parse->path,
                     error_quote(tensor, sizeof tensor, entry->tensor, entry->tensor_length),
                     error_quote(file, sizeof file, name, length), problem);
}

/* The number of a file, a new one when the name has not been seen yet. */
static int number_file(struct parse *parse, struct index_entry *entry, struct json_string name)
{
    if (string_map_find(&parse->file_numbers, name.bytes, name.length, &entry->file))
        return 0;

    const char *problem = check_file_name(parse, name.bytes, name.length), *copy;

    if (problem != NULL)
        return bad_file_name(parse, entry, name.bytes, name.length, problem);
    copy = arena_copy_string(parse->arena, name.bytes, name.length);
    entry->file = (uint32_t)parse->file_count;
    if (copy == NULL ||
        !grow((void **)&parse->files, parse->file_count, &parse->file_capacity,
              sizeof *parse->files) ||
        string_map_add(&parse->file_numbers, copy, name.length, entry->file, NULL) < 0)
        return error_no_memory(parse->error);
    parse->files[parse->file_count++] = copy;
    return 0;
}

/* ---- the JSON ----------------------------------------------------------------------------------
 */

static int parse_entry(struct parse *parse, struct json_string tensor)
{
    struct index_entry entry = {.tensor_length = (uint32_t)tensor.length};
    struct json_string file = {0};
    char quoted[QUOTED], place[QUOTED + 32];
    int result;

    entry.tensor = arena_copy_string(parse->arena, tensor.bytes, tensor.length);
    if (entry.tensor == NULL || !grow((void **)&parse->entries, parse->entry_count,
                                      &parse->entry_capacity, sizeof *parse->entries))
        return error_no_memory(parse->error);
    result = string_map_add(&parse->tensors, entry.tensor, entry.tensor_length,
                            (uint32_t)parse->entry_count, NULL);
    if (result < 0)
        return error_no_memory(parse->error);
    if (result == 0)
        return error_set(parse->error, "duplicate-tensor", 0,
                         "%s: weight_map: tensor \"%s\" appears twice", parse->path,
                         error_quote(quoted, sizeof quoted, entry.tensor, entry.tensor_length));
    result = json_read_string(&parse->reader, &file);
    if (result != 0) {
        snprintf(place, sizeof place, "weight_map: \"%s\"",
                 error_quote(quoted, sizeof quoted, entry.tensor, entry.tensor_length));
        return json_failed(parse, result, place);
    }
    result = number_file(parse, &entry, file);
    if (result == 0)
        parse->entries[parse->entry_count++] = entry;
    return result;
}

static int parse_weight_map(struct parse *parse)
{
    struct json_string tensor = {0};
    int more, result;

    if (parse->have_weight_map)
        return json_failed(parse, json_problem(&parse->reader, "key appears twice"), "weight_map");
    parse->have_weight_map = true;
    more = json_enter_object(&parse->reader);
    if (more == 0)
        more = json_next_key(&parse->reader, &tensor);
    for (; more > 0; more = json_next_key(&parse->reader, &tensor)) {
        result = parse_entry(parse, tensor);
        if (result != 0)
            return result;
    }
    return more == 0 ? 0 : json_failed(parse, more, "weight_map");
}

static int parse_metadata(struct parse *parse)
{
    struct json_string span = {0};
    enum json_type type = json_peek(&parse->reader);
    int result;

    if (parse->metadata_json != NULL)
        result = json_problem(&parse->reader, "key appears twice");
    else if (type != JSON_OBJECT && type != JSON_NULL && type != JSON_INVALID)
        result = json_problem(&parse->reader, "expected an object");
    else
        result = json_skip_value_span(&parse->reader, &span);
    if (result != 0)
        return json_failed(parse, result, "metadata");
    if (type == JSON_NULL)
        return 0;
    parse->metadata_json = arena_copy_string(parse->arena, span.bytes, span.length);
    parse->metadata_json_length = span.length;
    return parse->metadata_json != NULL ? 0 : error_no_memory(parse->error);
}

static bool key_is(struct json_string key, const char *name)
{
    return key.length == strlen(name) && memcmp(key.bytes, name, key.length) == 0;
}

static int parse_index(struct parse *parse)
{
    struct json_string key = {0};
    int more = json_enter_object(&parse->reader), result = 0;

    if (more == 0)
        more = json_next_key(&parse->reader, &key);
    for (; more > 0; more = json_next_key(&parse->reader, &key)) {
        if (key_is(key, "weight_map")) {
            result = parse_weight_map(parse);
        } else if (key_is(key, "metadata")) {
            result = parse_metadata(parse);
        } else {
            result = json_skip_value(&parse->reader);
            if (result != 0)
                result = json_failed(parse, result, "unknown field");
        }
        if (result != 0)
            return result;
    }
    result = more < 0 ? more : json_expect_end(&parse->reader);
    if (result != 0)
        return json_failed(parse, result, "top level");
    if (!parse->have_weight_map)
        return error_set(parse->error, "malformed-index", 0, "%s: weight_map is missing",
                         parse->path);
    return 0;
}

static int deliver(struct parse *parse, struct index_file *out)
{
    struct index_file index = {.entry_count = parse->entry_count,
                               .file_count = parse->file_count,
                               .metadata_json = parse->metadata_json,
                               .metadata_json_length = parse->metadata_json_length};

    index.entries = arena_alloc_array(parse->arena, index.entry_count, sizeof *index.entries);
    index.files = arena_alloc_array(parse->arena, index.file_count, sizeof *index.files);
    if (index.entries == NULL || index.files == NULL)
        return error_no_memory(parse->error);
    if (index.entry_count > 0)
        memcpy(index.entries, parse->entries, index.entry_count * sizeof *index.entries);
    if (index.file_count > 0)
        memcpy(index.files, parse->files, index.file_count * sizeof *index.files);
    *out = index;
    return 0;
}

int index_file_parse(const char *json, size_t length, const char *path, const char *index_name,
                     struct arena *arena, struct index_file *out, struct unshard_error *error)
{
    struct parse parse = {.path = path, .index_name = index_name, .arena = arena, .error = error};
    int result;

    if (length > INDEX_FILE_MAX_BYTES)
        return error_set(error, "index-too-large", 0,
                         "%s: index of %zu bytes is above the limit of %" PRIu64, path, length,
                         INDEX_FILE_MAX_BYTES);
    json_reader_init(&parse.reader, json, length);
    result = parse_index(&parse);
    if (result == 0)
        result = deliver(&parse, out);
    else if (result != -ENOMEM)
        foreign_bytes(json, length, length, path, error); /* which says more, if it is that */
    json_reader_free(&parse.reader);
    string_map_free(&parse.tensors);
    string_map_free(&parse.file_numbers);
    free(parse.entries);
    free(parse.files);
    return result;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static int compare_names(const void *left, const void *right)
{
    const struct tensor *a = *(const struct tensor *const *)left;
    const struct tensor *b = *(const struct tensor *const *)right;
    uint32_t common = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order = common > 0 ? memcmp(a->name, b->name, common) : 0;

    if (order != 0)
        return order;
    return (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

static void write_weight_map(const struct tensor *const *sorted, size_t count,
                             const char *merged_name, struct text *out)
{
    size_t name_length = strlen(merged_name);

    text_append_string(out, "  \"weight_map\": {");
    for (size_t i = 0; i < count; i++) {
        text_append_string(out, i > 0 ? ",\n    " : "\n    ");
        json_string_write(out, sorted[i]->name, sorted[i]->name_length);
        text_append_string(out, ": ");
        json_string_write(out, merged_name, name_length);
    }
    text_append_string(out, count > 0 ? "\n  }\n}\n" : "}\n}\n");
}

int index_file_write(const struct tensor *const *tensors, size_t tensor_count,
                     const char *merged_name, const char *metadata_json,
                     size_t metadata_json_length, uint64_t total_size, struct text *out,
                     struct unshard_error *error)
{
    const struct tensor **sorted = calloc(tensor_count + 1, sizeof *sorted);

    if (sorted == NULL)
        return error_no_memory(error);
    if (tensor_count > 0)
        memcpy(sorted, tensors, tensor_count * sizeof *sorted);
    qsort(sorted, tensor_count, sizeof *sorted, compare_names);
    text_append_string(out, "{\n  \"metadata\": ");
    if (metadata_json != NULL) {
        text_append(out, metadata_json, metadata_json_length);
    } else {
        text_append_string(out, "{\n    \"total_size\": ");
        text_append_u64(out, total_size);
        text_append_string(out, "\n  }");
    }
    text_append_string(out, ",\n");
    write_weight_map(sorted, tensor_count, merged_name, out);
    free(sorted);
    return out->failed ? error_no_memory(error) : 0;
}
