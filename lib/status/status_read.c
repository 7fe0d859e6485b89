/* SPDX-License-Identifier: MIT
 *
 * A status from its JSON, which another process has printed: another version of the program, or
 * anybody who wrote a file. Each field may be missing or of another type. This is the only place
 * that reads what we print. */
#include "status/status_memory.h"
#include "status/words.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* Several times what a checkpoint of 100,000 shards takes, all of which fail. */
#define MOST_BYTES ((size_t)1 << 29)

struct reading {
    struct arena *arena;
    bool failed; /* memory is short */
};

/* ---- fields ------------------------------------------------------------------------------------
 */

static const cJSON *field(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* The number if it is positive, 1 for true, else 0. */
static double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = field(object, key);
    if (cJSON_IsTrue(item))
        return 1;
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? item->valuedouble : 0;
}

/* Whole numbers are clipped, so that nothing overflows. */
static unsigned count_of(const cJSON *object, const char *key)
{
    double value = number_of(object, key);
    return value < 1e9 ? (unsigned)value : 1000000000;
}

static uint64_t bytes_of(const cJSON *object, const char *key)
{
    double value = number_of(object, key);
    return value < 9e18 ? (uint64_t)value : UINT64_C(9000000000000000000);
}

/* A word, which is looked up and not kept; NULL: there is none. */
static const char *word_of(const cJSON *object, const char *key)
{
    const cJSON *item = field(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static const char *keep(struct reading *reading, const char *string)
{
    char *copy = arena_copy_string(reading->arena, string, strlen(string));
    reading->failed |= copy == NULL;
    return copy;
}

static const char *string_of(struct reading *reading, const cJSON *object, const char *key)
{
    const char *string = word_of(object, key);
    return string != NULL ? keep(reading, string) : NULL;
}

/* The same where something must be told. */
static const char *name_of(struct reading *reading, const cJSON *object, const char *key,
                           const char *otherwise)
{
    const char *string = word_of(object, key);
    return string != NULL ? keep(reading, string) : otherwise;
}

/* An array for the items of a list; *count is 0 when there is no list, or no memory. */
static void *make_array(struct reading *reading, const cJSON *list, size_t size, uint32_t *count)
{
    *count = cJSON_IsArray(list) ? (uint32_t)cJSON_GetArraySize(list) : 0;
    void *array = arena_alloc_array(reading->arena, *count, size);
    if (array == NULL) {
        reading->failed = true;
        *count = 0;
    }
    return array;
}

/* ---- parts -------------------------------------------------------------------------------------
 */

static void read_error(struct reading *reading, const cJSON *item, struct unshard_error *out)
{
    const char *message = word_of(item, "message");
    out->code = name_of(reading, item, "code", "error");
    out->errno_value = (int)count_of(item, "errno");
    out->offset =
        cJSON_IsNumber(field(item, "offset")) ? bytes_of(item, "offset") : UNSHARD_NO_OFFSET;
    out->time = status_time_of(word_of(item, "time"));
    snprintf(out->message, sizeof out->message, "%s", message != NULL ? message : "no message");
}

static const struct unshard_error *error_of(struct reading *reading, const cJSON *object)
{
    const cJSON *item = field(object, "error");
    if (!cJSON_IsObject(item))
        return NULL;
    struct unshard_error *error = arena_alloc(reading->arena, sizeof *error);
    reading->failed |= error == NULL;
    if (error != NULL)
        read_error(reading, item, error);
    return error;
}

static const struct unshard_mismatch *mismatch_of(struct reading *reading, const cJSON *object)
{
    const cJSON *item = field(object, "mismatch");
    if (!cJSON_IsObject(item))
        return NULL;
    struct unshard_mismatch *mismatch = arena_alloc(reading->arena, sizeof *mismatch);
    reading->failed |= mismatch == NULL;
    if (mismatch != NULL)
        *mismatch = (struct unshard_mismatch){.algorithm = string_of(reading, item, "algorithm"),
                                              .expected = string_of(reading, item, "expected"),
                                              .actual = string_of(reading, item, "actual"),
                                              .origin = string_of(reading, item, "origin")};
    return mismatch;
}

static const char *const *read_notes(struct reading *reading, const cJSON *object, uint32_t *count)
{
    const cJSON *note, *list = field(object, "notes");
    const char **notes = make_array(reading, list, sizeof *notes, count);
    uint32_t found = 0;
    if (*count == 0)
        return NULL;
    cJSON_ArrayForEach(note, list)
    {
        if (cJSON_IsString(note))
            notes[found++] = keep(reading, note->valuestring);
    }
    *count = found;
    return notes;
}

static void read_shards(struct reading *reading, const cJSON *object,
                        struct unshard_component_status *out)
{
    const cJSON *item, *list = field(object, "shards");
    uint32_t i = 0, count;
    struct unshard_file_status *shards =
        make_array(reading, list, sizeof *shards, &out->shard_count);
    const struct unshard_file_status **pointers =
        make_array(reading, list, sizeof(struct unshard_file_status *), &count);
    out->shards = pointers;
    if (reading->failed || count == 0)
        return;
    cJSON_ArrayForEach(item, list)
    {
        pointers[i] = &shards[i];
        shards[i++] = (struct unshard_file_status){
            .path = name_of(reading, item, "file", "?"),
            .component = out->name,
            .state = state_of_name(word_of(item, "state")),
            .bytes_total = bytes_of(item, "bytes_total"),
            .bytes_read = bytes_of(item, "bytes_read"),
            .bytes_published = bytes_of(item, "bytes_published"),
            .reading_seconds = number_of(item, "reading_seconds"),
            .algorithm = string_of(reading, item, "algorithm"),
            .origin = string_of(reading, item, "origin"),
            .error = error_of(reading, item),
            .mismatch = mismatch_of(reading, item),
        };
    }
}

static void read_component(struct reading *reading, const cJSON *item,
                           struct unshard_component_status *out)
{
    out->name = name_of(reading, item, "name", "?");
    out->view = string_of(reading, item, "view");
    out->format = name_of(reading, item, "format", "?");
    out->prefix = string_of(reading, item, "prefix");
    out->state = state_of_name(word_of(item, "state"));
    out->bytes_total = bytes_of(item, "bytes_total");
    out->bytes_published = bytes_of(item, "bytes_published");
    out->evicted = number_of(item, "evicted") > 0;
    out->error = error_of(reading, item);
    out->notes = read_notes(reading, item, &out->note_count);
    read_shards(reading, item, out);
}

static void read_components(struct reading *reading, const cJSON *root, struct unshard_status *out)
{
    const cJSON *item, *list = field(root, "components");
    struct unshard_component_status *components =
        make_array(reading, list, sizeof *components, &out->component_count);
    out->components = components;
    if (out->component_count == 0)
        return;
    cJSON_ArrayForEach(item, list)
    {
        read_component(reading, item, components++);
    }
}

static void read_problems(struct reading *reading, const cJSON *root, struct unshard_status *out)
{
    const cJSON *item, *list = field(root, "problems");
    struct unshard_error *problems =
        make_array(reading, list, sizeof *problems, &out->problem_count);
    out->problems = problems;
    if (out->problem_count == 0)
        return;
    cJSON_ArrayForEach(item, list)
    {
        read_error(reading, item, problems++);
    }
}

static void read_stuck(struct reading *reading, const cJSON *root, struct unshard_status *out)
{
    const cJSON *item, *list = field(root, "stuck");
    struct unshard_stuck_read *stuck = make_array(reading, list, sizeof *stuck, &out->stuck_count);
    out->stuck = stuck;
    if (out->stuck_count == 0)
        return;
    cJSON_ArrayForEach(item, list)
    {
        *stuck++ = (struct unshard_stuck_read){.file = name_of(reading, item, "file", "?"),
                                               .offset = bytes_of(item, "offset"),
                                               .seconds = number_of(item, "seconds")};
    }
}

static void read_looks(struct reading *reading, const cJSON *root, struct unshard_looks *out)
{
    const cJSON *item, *list = field(root, "stuck_looks");
    out->stalled = count_of(root, "looks_stalled");
    out->oldest_seconds = number_of(root, "oldest_look_seconds");
    out->stuck = make_array(reading, list, sizeof *out->stuck, &out->stuck_count);
    struct unshard_stuck_look *look = out->stuck;
    if (out->stuck_count == 0)
        return;
    cJSON_ArrayForEach(item, list)
    {
        *look++ = (struct unshard_stuck_look){.directory = name_of(reading, item, "directory", "?"),
                                              .seconds = number_of(item, "seconds")};
    }
}

static void read_mount(struct reading *reading, const cJSON *root, struct unshard_status *out)
{
    out->version = string_of(reading, root, "version");
    out->pid = (pid_t)count_of(root, "pid");
    out->source = string_of(reading, root, "source");
    out->mountpoint = string_of(reading, root, "mountpoint");
    out->connection = count_of(root, "connection");
    out->read_ahead_bytes = bytes_of(root, "read_ahead_bytes");
    out->restarts = count_of(root, "restarts");
    out->restart_time = status_time_of(word_of(root, "restart_time"));
    out->restart_reason = restart_reason_of_name(word_of(root, "restart_reason"));
    out->state = mount_state_of_name(word_of(root, "state"));
    out->time = status_time_of(word_of(root, "time"));
    out->uptime_seconds = number_of(root, "uptime_seconds");
    out->verify = verify_of_name(word_of(root, "verify"));
    out->prefetch = prefetch_of_name(word_of(root, "prefetch"));
    out->paused_reason = string_of(reading, root, "paused_reason");
    out->errors = count_of(root, "errors");
}

static void read_figures(const cJSON *root, struct unshard_status *out)
{
    out->bytes_total = bytes_of(root, "bytes_total");
    out->bytes_published = bytes_of(root, "bytes_published");
    out->bytes_read = bytes_of(root, "bytes_read");
    out->bytes_stored = bytes_of(root, "bytes_stored");
    out->rate_bytes_per_second = number_of(root, "rate_bytes_per_second");
    out->reading_seconds = number_of(root, "reading_seconds");
    out->workers = count_of(root, "workers");
    out->jobs = count_of(root, "jobs");
    out->in_flight = count_of(root, "in_flight");
    out->stalled = count_of(root, "stalled");
    out->oldest_request_seconds = number_of(root, "oldest_request_seconds");
    out->chunk_bytes = bytes_of(root, "chunk_bytes");
    out->buffer_bytes = bytes_of(root, "buffer_bytes");
    out->buffer_used_bytes = bytes_of(root, "buffer_used_bytes");
    out->window_limited = cJSON_IsNumber(field(root, "window_bytes"));
    out->window_bytes = bytes_of(root, "window_bytes");
    out->unconsumed_bytes = bytes_of(root, "unconsumed_bytes");
    out->readers = count_of(root, "readers");
    out->reads = bytes_of(root, "reads");
    out->chunks_evicted = bytes_of(root, "chunks_evicted");
    out->store_errors = bytes_of(root, "store_errors");
    out->bytes_dropped = bytes_of(root, "bytes_dropped");
    out->bytes_staged = bytes_of(root, "bytes_staged");
}

static struct unshard_status *read_root(const cJSON *root)
{
    struct reading reading = {0};
    struct unshard_status *out = status_new(MOST_BYTES, &reading.arena);
    if (out == NULL)
        return NULL;
    read_mount(&reading, root, out);
    read_figures(root, out);
    read_stuck(&reading, root, out);
    read_looks(&reading, root, &out->looks);
    read_components(&reading, root, out);
    read_problems(&reading, root, out);
    out->notes = read_notes(&reading, root, &out->note_count);
    if (!reading.failed)
        return out;
    unshard_status_free(out);
    return NULL;
}

struct unshard_status *unshard_status_parse(const char *json)
{
    cJSON *root = cJSON_Parse(json);
    bool known = cJSON_IsObject(root) && count_of(root, "schema") == STATUS_SCHEMA;
    struct unshard_status *status = known ? read_root(root) : NULL;
    cJSON_Delete(root);
    return status;
}
