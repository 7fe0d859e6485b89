/* SPDX-License-Identifier: MIT */
#include "tree/model.h"

#include "base/error.h"
#include "base/text.h"
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

struct tensor_list {
    struct text *text;
    const char *separator;
};

static void write_tensor(void *context, const struct unshard_tensor *tensor)
{
    struct tensor_list *list = context;
    struct text *text = list->text;
    text_printf(text, "%s{\"name\":", list->separator);
    list->separator = ",";
    json_string_write(text, tensor->name, tensor->name_length);
    text_printf(text, ",\"dtype\":\"%s\",\"shape\":[", tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (i > 0)
            text_append_string(text, ",");
        text_append_u64(text, tensor->shape[i]);
    }
    text_append_string(text, "],\"bytes\":");
    text_append_u64(text, tensor->bytes);
    text_append_string(text, ",");
    json_member_write(text, "shard", tensor->shard);
    text_append_string(text, "}");
}

static int write_tensors(const struct unshard_checkpoint *checkpoint, uint32_t component,
                         struct text *text)
{
    struct tensor_list list = {text, ""};
    text_append_string(text, ",\"tensors\":[");
    int result = unshard_component_tensors(checkpoint, component, write_tensor, &list, NULL);
    text_append_string(text, "]");
    return result;
}

static int write_component(const struct unshard_checkpoint *checkpoint, uint32_t number,
                           bool tensors, struct text *text)
{
    const struct component *component = &checkpoint->components[number];
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
        result = write_tensors(checkpoint, number, text);
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
        result = write_component(checkpoint, i, tensors, &text);
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
