/* SPDX-License-Identifier: MIT */
#include "tree/headers.h"
#include "tree/model.h"

#include "base/error.h"
#include "base/text.h"
#include "formats/gather.h"
#include "formats/safetensors/safetensors.h"
#include "json/json_string.h"
#include "json/json_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void write_error(struct text *text, const struct unshard_error *error)
{
    text_append_string(text, "\"error\":");
    json_error_write(text, error);
}

/* What is known of the content: best first; of a contradiction nothing is believed. */
static void write_digests(struct text *text, const struct expectation *expectation)
{
    char hex[DIGEST_MAX_HEX];
    text_append_string(text, ",\"digests\":[");
    for (uint32_t i = 0; expectation != NULL && i < expectation->digest_count; i++) {
        const struct expected_digest *known = &expectation->digests[i];
        text_printf(text, "%s{\"algorithm\":\"%s\",\"digest\":\"%s\",", i > 0 ? "," : "",
                    digest_algorithm_name(known->digest.algorithm),
                    digest_to_hex(&known->digest, hex));
        json_member_write(text, "origin", known->origin);
        text_append_string(text, "}");
    }
    text_append_string(text, "],");
    json_member_write(
        text, "chunk_digests",
        expectation != NULL && expectation->chunks != NULL ? expectation->chunks->origin : NULL);
    if (expectation != NULL && expectation->contradicts) {
        text_append_string(text, ",\"contradiction\":");
        json_error_write(text, &expectation->error);
    }
}

static void write_notes(struct text *text, const char *const *notes, uint32_t count)
{
    text_append_string(text, "\"notes\":[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            text_append_string(text, ",");
        json_name_write(text, notes[i]);
    }
    text_append_string(text, "]");
}

static void write_shards(const struct unshard_checkpoint *checkpoint,
                         const struct component *component, struct text *text)
{
    text_append_string(text, "\"shards\":[");
    for (uint32_t i = 0; i < component->file_count; i++) {
        const struct source_file *file = &checkpoint->files[component->files[i]];
        text_append_string(text, i > 0 ? ",{" : "{");
        json_member_write(text, "file", file->path);
        text_printf(text, ",\"bytes\":%llu,\"state\":\"%s\",", (unsigned long long)file->size,
                    file->failed ? "failed" : "ok");
        write_error(text, file->error);
        write_digests(text, file->expectation);
        text_append_string(text, "}");
    }
    text_append_string(text, "]");
}

/* The file that the first bytes of a tensor come from, which begins at offset or holds it. */
static uint32_t first_source(const struct gathered *gathered, uint64_t offset)
{
    uint32_t i = 0;
    while (i + 1 < gathered->count && gathered->pieces[i + 1].offset <= offset)
        i++;
    return gathered->pieces[i].gather->boxes[0].file;
}

static void write_tensor(const struct unshard_checkpoint *checkpoint, const struct tensor *tensor,
                         struct text *text)
{
    text_append_string(text, "{\"name\":");
    json_string_write(text, tensor->name, tensor->name_length);
    text_printf(text, ",\"dtype\":\"%s\",\"shape\":[", tensor_type_name(tensor));
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (i > 0)
            text_append_string(text, ",");
        text_append_u64(text, tensor->shape[i]);
    }
    text_append_string(text, "],\"bytes\":");
    text_append_u64(text, tensor->length);
    text_append_string(text, ",");
    json_member_write(text, "shard",
                      tensor->file != EXTENT_LITERAL ? checkpoint->files[tensor->file].path : NULL);
    text_append_string(text, "}");
}

/* The tensors of a merged safetensors file, from the header that was made for it. 1: listed, 0: it
 * has none. */
static int write_merged_tensors(const struct unshard_checkpoint *checkpoint,
                                const struct view *view, struct text *text)
{
    const struct extent_map *map = &view->map;
    struct arena arena = {0};
    struct tensor_set set = {0};
    if (map->count == 0 || map->extents[0].source != EXTENT_LITERAL || map->literal_size < 8 ||
        safetensors_parse(map->literal + 8, map->literal_size - 8, map->size, view->path, &arena,
                          &set, NULL) != 0) {
        arena_free(&arena);
        return 0;
    }
    text_append_string(text, ",\"tensors\":[");
    for (size_t i = 0; i < set.tensor_count; i++) {
        struct extent_piece piece = extent_map_at(map, set.tensors[i].offset, 1);
        uint32_t file = piece.source;
        if (file != EXTENT_LITERAL && checkpoint->files[file].gathered != NULL)
            file = first_source(checkpoint->files[file].gathered, piece.source_offset);
        set.tensors[i].file = file; /* of an empty tensor at the end there is none */
        text_append_string(text, i > 0 ? "," : "");
        write_tensor(checkpoint, &set.tensors[i], text);
    }
    text_append_string(text, "]");
    arena_free(&arena);
    return 1;
}

/* Of a component that is one of several in its files: is the tensor its own? Takes the prefix off.
 */
static bool is_own_tensor(const struct component *component, struct tensor *tensor)
{
    if (component->prefix == NULL)
        return true;
    if (tensor->name_length < component->prefix_length ||
        memcmp(tensor->name, component->prefix, component->prefix_length) != 0)
        return false;
    tensor->name += component->prefix_length;
    tensor->name_length -= (uint32_t)component->prefix_length;
    return true;
}

static int write_tensors(const struct unshard_checkpoint *checkpoint,
                         const struct component *component, struct text *text)
{
    const char *separator = "";
    const struct format *format = format_of_name(component->format);
    if (component->view != UNSHARD_NO_VIEW &&
        write_merged_tensors(checkpoint, &checkpoint->views[component->view], text))
        return 0;
    uint32_t count = format->read != NULL ? component->file_count : 0;
    struct header *headers = calloc(count + 1U, sizeof *headers);
    if (headers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        headers[i].file = component->files[i];
        headers[i].format = format;
    }
    struct memory_budget budget = {.limit = HEADERS_MEMORY};
    headers_read(checkpoint, headers, count, &budget);
    text_append_string(text, ",\"tensors\":[");
    for (uint32_t i = 0; i < count; i++) {
        if (headers[i].result != 0 && !headers[i].truncated)
            continue;
        for (size_t t = 0; t < headers[i].set.tensor_count; t++) {
            if (!is_own_tensor(component, &headers[i].set.tensors[t]))
                continue;
            text_append_string(text, separator);
            separator = ",";
            write_tensor(checkpoint, &headers[i].set.tensors[t], text);
        }
    }
    text_append_string(text, "]");
    headers_free(headers, count);
    return 0;
}

static int write_component(const struct unshard_checkpoint *checkpoint,
                           const struct component *component, bool tensors, struct text *text)
{
    int result = 0;
    text_append_string(text, "{");
    json_member_write(text, "name", component->name);
    text_append_string(text, ",");
    json_member_write(text, "directory", component->directory);
    text_append_string(text, ",");
    json_member_write(text, "view", component->view_path);
    text_append_string(text, ",");
    json_member_write(text, "format", component->format);
    text_append_string(text, ",");
    json_member_write(text, "prefix", component->prefix);
    text_printf(text, ",\"state\":\"%s\",\"bytes\":%llu,\"tensor_count\":%llu,",
                component->failed ? "failed" : "ok", (unsigned long long)component->bytes,
                (unsigned long long)component->tensor_count);
    write_shards(checkpoint, component, text);
    text_append_string(text, ",");
    write_error(text, component->failed ? &component->error : NULL);
    text_append_string(text, ",");
    write_notes(text, component->notes, component->note_count);
    if (tensors)
        result = write_tensors(checkpoint, component, text);
    text_append_string(text, "}");
    return result;
}

char *unshard_checkpoint_describe_json(const struct unshard_checkpoint *checkpoint, bool tensors,
                                       struct unshard_error *error)
{
    struct text text = {0};
    uint32_t files = 0;
    int result = 0;
    for (uint32_t i = 0; i < checkpoint->node_count; i++)
        files += checkpoint->nodes[i].kind == UNSHARD_NODE_FILE && !checkpoint->nodes[i].unlisted;
    text_append_string(&text, "{\"schema\":1,");
    json_member_write(&text, "source", checkpoint->source);
    text_append_string(&text, ",\"components\":[");
    for (uint32_t i = 0; i < checkpoint->component_count && result == 0; i++) {
        if (i > 0)
            text_append_string(&text, ",");
        result = write_component(checkpoint, &checkpoint->components[i], tensors, &text);
    }
    text_printf(&text, "],\"files\":%u,", files);
    write_notes(&text, checkpoint->notes, checkpoint->note_count);
    text_append_string(&text, ",");
    json_errors_write(&text, "problems", checkpoint->problems, checkpoint->problem_count);
    text_append_string(&text, "}");
    char *json = result == 0 ? text_take(&text) : NULL;
    text_free(&text);
    if (json == NULL)
        error_no_memory(error);
    return json;
}
