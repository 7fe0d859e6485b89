/* SPDX-License-Identifier: MIT
 *
 * The status as JSON, schema 1. */
#include "base/text.h"
#include "status/words.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

static void add_u64(cJSON *object, const char *name, uint64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    cJSON_AddRawToObject(object, name, digits);
}

static void add_u64_or_null(cJSON *object, const char *name, bool known, uint64_t value)
{
    if (known)
        add_u64(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static void add_number(cJSON *object, const char *name, double value)
{
    char digits[64];
    snprintf(digits, sizeof digits, "%.3f", value);
    cJSON_AddRawToObject(object, name, digits);
}

static void add_string(cJSON *object, const char *name, const char *value)
{
    char quoted[STATUS_NAME_CAPACITY];
    if (value == NULL)
        cJSON_AddNullToObject(object, name);
    else
        cJSON_AddStringToObject(object, name, status_name(quoted, value));
}

static void add_time(cJSON *object, const char *name, int64_t seconds)
{
    char when[STATUS_TIME_CAPACITY];
    add_string(object, name, seconds != 0 ? status_time(when, seconds) : NULL);
}

static cJSON *error_json(const struct unshard_error *error)
{
    cJSON *item = cJSON_CreateObject();
    add_string(item, "code", error->code);
    add_string(item, "message", error->message);
    add_u64_or_null(item, "offset", error->offset != UNSHARD_NO_OFFSET, error->offset);
    add_u64_or_null(item, "errno", error->errno_value != 0, (uint64_t)error->errno_value);
    add_time(item, "time", error->time);
    return item;
}

static void add_error(cJSON *object, const struct unshard_error *error)
{
    if (error != NULL)
        cJSON_AddItemToObject(object, "error", error_json(error));
    else
        cJSON_AddNullToObject(object, "error");
}

/* A file that belongs to no component has no other place where its error could be told. */
static void add_problems(cJSON *root, const struct unshard_status *status)
{
    cJSON *list = cJSON_AddArrayToObject(root, "problems");
    for (uint32_t i = 0; i < status->problem_count; i++)
        cJSON_AddItemToArray(list, error_json(&status->problems[i]));
    for (uint32_t i = 0; i < status->file_count; i++)
        if (status->files[i]->component == NULL && status->files[i]->error != NULL)
            cJSON_AddItemToArray(list, error_json(status->files[i]->error));
}

static void add_notes(cJSON *object, const char *const *notes, uint32_t count)
{
    cJSON *list = cJSON_AddArrayToObject(object, "notes");
    for (uint32_t i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(notes[i]));
}

static void add_mismatch(cJSON *object, const struct unshard_mismatch *mismatch)
{
    if (mismatch == NULL) {
        cJSON_AddNullToObject(object, "mismatch");
        return;
    }
    cJSON *item = cJSON_AddObjectToObject(object, "mismatch");
    add_string(item, "algorithm", mismatch->algorithm);
    add_string(item, "expected", mismatch->expected);
    add_string(item, "actual", mismatch->actual);
    add_string(item, "origin", mismatch->origin);
}

static cJSON *shard_json(const struct unshard_file_status *shard)
{
    cJSON *item = cJSON_CreateObject();
    add_string(item, "file", shard->path);
    add_string(item, "state", unshard_state_name(shard->state));
    add_u64(item, "bytes_total", shard->bytes_total);
    add_u64(item, "bytes_read", shard->bytes_read);
    add_u64(item, "bytes_published", shard->bytes_published);
    add_number(item, "reading_seconds", shard->reading_seconds);
    add_string(item, "algorithm", shard->algorithm);
    add_string(item, "origin", shard->origin);
    add_error(item, shard->error);
    add_mismatch(item, shard->mismatch);
    return item;
}

static cJSON *component_json(const struct unshard_component_status *component)
{
    cJSON *item = cJSON_CreateObject();
    add_string(item, "name", component->name);
    add_string(item, "view", component->view);
    add_string(item, "format", component->format);
    add_string(item, "prefix", component->prefix);
    add_string(item, "state", unshard_state_name(component->state));
    add_u64(item, "bytes_total", component->bytes_total);
    add_u64(item, "bytes_published", component->bytes_published);
    cJSON_AddBoolToObject(item, "evicted", component->evicted);
    add_error(item, component->error);
    add_notes(item, component->notes, component->note_count);
    cJSON *shards = cJSON_AddArrayToObject(item, "shards");
    for (uint32_t i = 0; i < component->shard_count; i++)
        cJSON_AddItemToArray(shards, shard_json(component->shards[i]));
    return item;
}

static void add_stuck(cJSON *root, const struct unshard_status *status)
{
    cJSON *list = cJSON_AddArrayToObject(root, "stuck");
    for (uint32_t i = 0; i < status->stuck_count; i++) {
        cJSON *item = cJSON_CreateObject();
        add_string(item, "file", status->stuck[i].file);
        add_u64(item, "offset", status->stuck[i].offset);
        add_number(item, "seconds", status->stuck[i].seconds);
        cJSON_AddItemToArray(list, item);
    }
}

static void add_looks(cJSON *root, const struct unshard_looks *looks)
{
    add_u64(root, "looks_stalled", looks->stalled);
    add_number(root, "oldest_look_seconds", looks->oldest_seconds);
    cJSON *list = cJSON_AddArrayToObject(root, "stuck_looks");
    for (uint32_t i = 0; i < looks->stuck_count; i++) {
        cJSON *item = cJSON_CreateObject();
        add_string(item, "directory", looks->stuck[i].directory);
        add_number(item, "seconds", looks->stuck[i].seconds);
        cJSON_AddItemToArray(list, item);
    }
}

static void add_mount(cJSON *root, const struct unshard_status *status)
{
    add_string(root, "version", status->version);
    add_u64(root, "pid", (uint64_t)status->pid);
    add_string(root, "source", status->source);
    add_string(root, "mountpoint", status->mountpoint);
    add_u64_or_null(root, "connection", status->connection != 0, status->connection);
    add_u64_or_null(root, "read_ahead_bytes", status->read_ahead_bytes != 0,
                    status->read_ahead_bytes);
    add_u64(root, "restarts", status->restarts);
    add_time(root, "restart_time", status->restart_time);
    add_string(root, "restart_reason", restart_reason_of_name(status->restart_reason));
    add_string(root, "state", unshard_mount_state_name(status->state));
    add_time(root, "time", status->time);
    add_number(root, "uptime_seconds", status->uptime_seconds);
    add_u64(root, "bytes_total", status->bytes_total);
    add_u64(root, "bytes_published", status->bytes_published);
}

static void add_figures(cJSON *root, const struct unshard_status *status)
{
    add_u64(root, "bytes_read", status->bytes_read);
    add_u64(root, "bytes_stored", status->bytes_stored);
    add_number(root, "rate_bytes_per_second", status->rate_bytes_per_second);
    add_number(root, "reading_seconds", status->reading_seconds);
    add_u64(root, "workers", status->workers);
    add_u64(root, "jobs", status->jobs);
    add_u64(root, "in_flight", status->in_flight);
    add_u64(root, "stalled", status->stalled);
    add_number(root, "oldest_request_seconds", status->oldest_request_seconds);
    add_u64(root, "chunk_bytes", status->chunk_bytes);
    add_u64(root, "buffer_bytes", status->buffer_bytes);
    add_u64(root, "buffer_used_bytes", status->buffer_used_bytes);
    add_u64_or_null(root, "window_bytes", status->window_limited, status->window_bytes);
    add_u64(root, "unconsumed_bytes", status->unconsumed_bytes);
    add_u64(root, "readers", status->readers);
    add_u64(root, "reads", status->reads);
    add_u64(root, "chunks_evicted", status->chunks_evicted);
    add_u64(root, "store_errors", status->store_errors);
    add_u64(root, "bytes_dropped", status->bytes_dropped);
    add_u64(root, "bytes_staged", status->bytes_staged);
    add_stuck(root, status);
    add_looks(root, &status->looks);
    add_string(root, "verify", verify_name(status->verify));
    add_string(root, "prefetch", prefetch_name(status->prefetch));
    add_string(root, "paused_reason", status->paused_reason);
    add_u64(root, "errors", status->errors);
}

static cJSON *root_json(const struct unshard_status *status)
{
    cJSON *root = cJSON_CreateObject();
    add_u64(root, "schema", STATUS_SCHEMA);
    add_mount(root, status);
    add_figures(root, status);
    cJSON *components = cJSON_AddArrayToObject(root, "components");
    for (uint32_t i = 0; i < status->component_count; i++)
        cJSON_AddItemToArray(components, component_json(&status->components[i]));
    add_problems(root, status);
    add_notes(root, status->notes, status->note_count);
    return root;
}

char *unshard_status_json(const struct unshard_status *status)
{
    struct text text = {0};
    cJSON *root = root_json(status);
    char *json = root != NULL ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (json == NULL)
        return NULL;
    text_append_string(&text, json);
    text_append_string(&text, "\n");
    cJSON_free(json);
    return text_take(&text);
}
