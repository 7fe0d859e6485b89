/* SPDX-License-Identifier: MIT
 *
 * DCP_SHARDING_INFO: {"tensor": {"saved_offsets": [0, 5]}, ...}, as a string in the metadata of a
 * safetensors file. */
#include "formats/safetensors/safetensors.h"

#include "base/error.h"
#include "base/string_map.h"
#include "json/json_reader.h"

#include <errno.h>
#include <string.h>

#define MAX_RANK 64U

struct sharding {
    struct tensor_set *set;
    const char *path;
    struct arena *arena;
    struct unshard_error *error;
    struct json_reader reader;
    struct string_map names; /* -> number of the tensor */
};

static bool is_key(const struct metadata_entry *entry, const char *key)
{
    return entry->key_length == strlen(key) && memcmp(entry->key, key, entry->key_length) == 0;
}

static int json_failed(struct sharding *sharding, int result)
{
    if (result == -ENOMEM)
        return error_no_memory(sharding->error);
    return error_set(sharding->error, "malformed-parts", 0, "%s: DCP_SHARDING_INFO: %s at byte %zu",
                     sharding->path,
                     sharding->reader.problem != NULL ? sharding->reader.problem : "malformed",
                     sharding->reader.problem_offset);
}

static int bad_entry(struct sharding *sharding, const char *name, size_t length, const char *what)
{
    char quoted[96];
    return error_set(sharding->error, "malformed-parts", 0,
                     "%s: DCP_SHARDING_INFO: tensor \"%s\" %s", sharding->path,
                     error_quote(quoted, sizeof quoted, name, length), what);
}

static int index_tensors(struct sharding *sharding)
{
    for (size_t i = 0; i < sharding->set->tensor_count; i++) {
        const struct tensor *tensor = &sharding->set->tensors[i];
        if (string_map_add(&sharding->names, tensor->name, tensor->name_length, (uint32_t)i, NULL) <
            0)
            return error_no_memory(sharding->error);
    }
    return 0;
}

/* [NUMBER, ...] of at most MAX_RANK. */
static int read_offsets(struct sharding *sharding, uint64_t *offsets, uint32_t *count)
{
    struct json_reader *reader = &sharding->reader;
    int more = 0, result = json_enter_array(reader);
    *count = 0;
    while (result == 0 && (more = json_next_element(reader)) > 0) {
        if (*count == MAX_RANK)
            return json_problem(reader, "too many dimensions");
        result = json_read_u64(reader, &offsets[(*count)++]);
    }
    return result != 0 ? result : more;
}

static int set_part(struct sharding *sharding, struct tensor *tensor, const uint64_t *offsets,
                    uint32_t count)
{
    struct tensor_part *part = arena_alloc(sharding->arena, sizeof *part);
    uint64_t *kept = arena_alloc_array(sharding->arena, count, sizeof *kept);
    if (part == NULL || kept == NULL)
        return error_no_memory(sharding->error);
    if (count != tensor->rank)
        return bad_entry(sharding, tensor->name, tensor->name_length,
                         "has offsets of another number of dimensions");
    memcpy(kept, offsets, count * sizeof *kept);
    part->offsets = kept;
    tensor->part = part;
    return 0;
}

/* {"saved_offsets": [...]} of the tensor called `key`. */
static int read_entry(struct sharding *sharding, struct json_string key)
{
    struct json_reader *reader = &sharding->reader;
    struct json_string field;
    uint64_t offsets[MAX_RANK] = {0};
    uint32_t number = 0, count = 0;
    bool known = string_map_find(&sharding->names, key.bytes, key.length, &number), seen = false;
    if (!known)
        return bad_entry(sharding, key.bytes, key.length, "is not in the file");
    struct tensor *tensor = &sharding->set->tensors[number];
    int more = 0, result = json_enter_object(reader);
    while (result == 0 && (more = json_next_key(reader, &field)) > 0) {
        bool offsets_follow =
            field.length == 13 && memcmp(field.bytes, "saved_offsets", field.length) == 0;
        result = offsets_follow ? read_offsets(sharding, offsets, &count) : json_skip_value(reader);
        seen = seen || offsets_follow;
    }
    if (result != 0 || more < 0)
        return json_failed(sharding, result != 0 ? result : more);
    if (!seen || tensor->part != NULL)
        return bad_entry(sharding, tensor->name, tensor->name_length,
                         seen ? "is there twice" : "has no saved_offsets");
    return set_part(sharding, tensor, offsets, count);
}

static int read_info(struct sharding *sharding)
{
    struct json_reader *reader = &sharding->reader;
    struct json_string key = {0};
    int more = json_enter_object(reader);
    if (more == 0)
        more = json_next_key(reader, &key);
    for (; more > 0; more = json_next_key(reader, &key)) {
        int result = read_entry(sharding, key);
        if (result != 0)
            return result;
    }
    if (more == 0)
        more = json_expect_end(reader);
    if (more < 0)
        return json_failed(sharding, more);
    for (size_t i = 0; i < sharding->set->tensor_count; i++) {
        const struct tensor *tensor = &sharding->set->tensors[i];
        if (tensor->part == NULL)
            return bad_entry(sharding, tensor->name, tensor->name_length, "is missing");
    }
    return 0;
}

int safetensors_find_parts(struct tensor_set *set, const char *path, struct arena *arena,
                           struct unshard_error *error)
{
    struct sharding sharding = {.set = set, .path = path, .arena = arena, .error = error};
    const struct metadata_entry *info = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < set->metadata_count && info == NULL; i++)
        if (is_key(&set->metadata[i], "DCP_SHARDING_INFO"))
            info = &set->metadata[i];
    if (info == NULL)
        return 0;
    int result = index_tensors(&sharding);
    if (result == 0) {
        json_reader_init(&sharding.reader, info->value, info->value_length);
        result = read_info(&sharding);
        json_reader_free(&sharding.reader);
    }
    for (size_t i = 0; i < set->metadata_count; i++)
        if (!is_key(&set->metadata[i], "DCP_SHARDING_INFO") &&
            !is_key(&set->metadata[i], "DCP_VERSION"))
            set->metadata[kept++] = set->metadata[i];
    set->metadata_count = kept;
    string_map_free(&sharding.names);
    return result;
}
