/* SPDX-License-Identifier: MIT
 *
 * The engine's state as JSON, schema 1. The state is copied under the lock, the text made without
 * it.
 */
#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "engine/engine_internal.h"
#include "formats/gather.h"
#include "status/error_line.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct shard_snapshot {
    uint64_t bytes_total, bytes_read, bytes_published;
    const char *state, *algorithm, *origin;
    bool has_error, shown; /* shown: a view shows some of it as it lies there */
    struct unshard_error error;
    struct mismatch mismatch;
};

/* A read that hangs. */
struct stuck_read {
    uint32_t file;
    uint64_t offset, age_ns;
};

#define MAX_STUCK 16

struct snapshot {
    struct shard_snapshot *files;
    uint64_t bytes_read, bytes_stored, unconsumed, window, reads, evicted, store_errors, oldest_ns;
    uint64_t buffer_used, buffer_total;
    struct stuck_read stuck[MAX_STUCK];
    unsigned stuck_count;
    uint64_t dropped, staged;
    bool *component_evicted;
    double rate;
    unsigned workers, jobs, in_flight, stalled, readers;
    bool plan_done, window_limited, stopping;
    const char *paused_reason;
    bool source_gone;
    struct unshard_error source_error;
};

static const char *shard_state(const struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    bool all_checked = file->check == CHECK_CHUNKS && file->chunk_count > file->chunks_unshown &&
                       file->chunks_checked + file->chunks_unshown == file->chunk_count;
    bool ill = file_error(engine, number) != NULL;
    if (gate_is_blocked(&file->gate) || (ill && (file->chunks_failed > 0 || file->retrying == 0)))
        return "failed";
    if (file->verified || all_checked)
        return "verified";
    if (file->chunk_count == file->chunks_seen + file->chunks_unshown && file->check != CHECK_WHOLE)
        return "unverified";
    return file->chunks_seen > 0 || file->retrying > 0 ? "reading" : "pending";
}

/* What the file is checked by; NULL, NULL: nothing is known of it. */
static void set_digest(const struct file_state *file, struct shard_snapshot *out)
{
    if (file->whole != NULL) {
        out->algorithm = digest_algorithm_name(file->whole->digest.algorithm);
        out->origin = file->whole->origin;
    } else if (file->check == CHECK_CHUNKS) {
        out->algorithm = digest_algorithm_name(file->trusted.algorithm);
        out->origin = file->trusted.origin;
    }
}

/* What is gathered was checked by the digests of the shards that it was taken from. */
static const char *gathered_state(const struct unshard_engine *engine,
                                  const struct gathered *gathered, const char *state)
{
    bool checked = strcmp(state, "unverified") == 0;
    for (uint32_t i = 0; i < gathered->source_count && checked; i++)
        checked = engine->files[gathered->sources[i].file].check == CHECK_CHUNKS;
    return checked ? "verified" : state;
}

/* How long the file is: one that is shown as it is may have become another. */
static uint64_t size_of(const struct unshard_engine *engine, uint32_t file)
{
    const struct source_file *source = &engine->checkpoint->files[file];
    return source->as_is ? engine->files[file].size : source->size;
}

static void copy_files(struct unshard_engine *engine, struct snapshot *out)
{
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++) {
        const struct file_state *file = &engine->files[i];
        const struct unshard_error *error = file_error(engine, i);
        out->files[i] =
            (struct shard_snapshot){.bytes_total = size_of(engine, i) - file->unshown_bytes,
                                    .bytes_read = file->bytes_seen,
                                    .bytes_published = file->bytes_published,
                                    .state = shard_state(engine, i),
                                    .shown = file->chunks_unshown < file->chunk_count,
                                    .has_error = error != NULL,
                                    .mismatch = *file_mismatch(file)};
        if (error != NULL)
            out->files[i].error = *error;
        set_digest(file, &out->files[i]);
        if (engine->checkpoint->files[i].gathered != NULL)
            out->files[i].state =
                gathered_state(engine, engine->checkpoint->files[i].gathered, out->files[i].state);
    }
}

static bool is_done(const char *state)
{
    return strcmp(state, "verified") == 0 || strcmp(state, "unverified") == 0;
}

/* The word for a shard of which a part is gathered: the worst of both; else done when both are,
 * begun when one is. */
static const char *joint_state(const struct shard_snapshot *shard, const char *part)
{
    bool matched = strcmp(shard->state, "verified") == 0; /* all of it */
    if (strcmp(shard->state, "failed") == 0 || strcmp(part, "failed") == 0)
        return "failed";
    if (matched || strcmp(shard->state, part) == 0 || (is_done(part) && is_done(shard->state)))
        return shard->shown || matched ? shard->state : part;
    return shard->shown ? "reading" : part;
}

bool error_names_file(const struct unshard_error *error, const char *path)
{
    size_t length = strlen(path);
    return strncmp(error->message, path, length) == 0 && error->message[length] == ':';
}

/* Tensors that are put together on reading are no shard: what became of them is told of the shards
 * that their bytes come from. */
static void fold_gathered(const struct unshard_checkpoint *checkpoint, struct snapshot *out)
{
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct gathered *gathered = checkpoint->files[i].gathered;
        const struct shard_snapshot *part = &out->files[i];
        for (uint32_t k = 0; gathered != NULL && k < gathered->source_count; k++) {
            if (!part->shown && !part->has_error)
                continue; /* nobody waits for it */
            const struct gathered_source *source = &gathered->sources[k];
            struct shard_snapshot *shard = &out->files[source->file];
            double share = (double)source->bytes / (double)gathered->size;
            shard->bytes_total += source->bytes;
            shard->bytes_read += (uint64_t)((double)part->bytes_read * share);
            shard->bytes_published += (uint64_t)((double)part->bytes_published * share);
            bool to_blame = part->has_error &&
                            error_names_file(&part->error, checkpoint->files[source->file].path);
            if (to_blame) {
                shard->has_error = true;
                shard->error = part->error;
            }
            if (strcmp(part->state, "failed") != 0 || to_blame)
                shard->state = joint_state(shard, part->state);
        }
    }
}

static void release_snapshot(struct snapshot *snapshot)
{
    free(snapshot->files);
    free(snapshot->component_evicted);
}

static bool take_snapshot(struct unshard_engine *engine, struct snapshot *out)
{
    *out = (struct snapshot){0};
    out->files = calloc(engine->checkpoint->file_count + 1U, sizeof *out->files);
    out->component_evicted =
        calloc(engine->checkpoint->component_count + 1U, sizeof *out->component_evicted);
    if (out->files == NULL || out->component_evicted == NULL) {
        release_snapshot(out);
        return false;
    }
    pthread_mutex_lock(&engine->lock);
    uint64_t now = engine_now_ns();
    copy_files(engine, out);
    out->bytes_read = engine->bytes_read;
    out->bytes_stored = __atomic_load_n(&engine->bytes_stored, __ATOMIC_RELAXED);
    out->unconsumed = engine->unconsumed_bytes;
    out->window = engine->window_bytes;
    out->window_limited = engine->window_limited;
    out->reads = engine->reads;
    out->evicted = engine->chunks_evicted;
    out->store_errors = engine->store_errors;
    out->buffer_total = engine->buffers.count * (uint64_t)engine->chunk_bytes;
    out->buffer_used =
        out->buffer_total -
        (engine->buffers.free_count + engine->buffers.kept.count) * (uint64_t)engine->chunk_bytes;
    out->rate = engine->rate;
    out->workers = engine->reader_count;
    out->jobs = jobs_allowed(&engine->jobs);
    out->in_flight = engine->reading_count;
    out->stalled = engine->stalled_count;
    out->plan_done = engine->plan_done;
    out->paused_reason = engine->paused_reason;
    out->stopping = engine->no_stores;
    out->source_gone = engine->source_gone;
    out->source_error = engine->source_error;
    out->dropped = engine->bytes_dropped;
    out->staged = engine->staged_bytes;
    for (const struct fetch *fetch = engine->reading.first; fetch != NULL; fetch = fetch->next) {
        uint64_t age = now - fetch->since_ns;
        out->oldest_ns = age > out->oldest_ns ? age : out->oldest_ns;
        if (fetch->stalled && out->stuck_count < MAX_STUCK)
            out->stuck[out->stuck_count++] =
                (struct stuck_read){fetch->file, (uint64_t)fetch->index * engine->chunk_bytes, age};
    }
    for (uint32_t v = 0; v < engine->checkpoint->view_count; v++) {
        uint32_t component = engine->checkpoint->views[v].component;
        out->readers += engine->views[v].opened;
        if (component != NO_COMPONENT && engine->views[v].evicted)
            out->component_evicted[component] = true;
    }
    pthread_mutex_unlock(&engine->lock);
    fold_gathered(engine->checkpoint, out);
    return true;
}

static void add_u64(cJSON *object, const char *name, uint64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    cJSON_AddRawToObject(object, name, digits);
}

static void add_number(cJSON *object, const char *name, double value)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.3f", value);
    cJSON_AddRawToObject(object, name, digits);
}

static bool is_utf8(const char *string)
{
    for (size_t left = strlen(string), length; left > 0; string += length, left -= length) {
        length = utf8_sequence((const unsigned char *)string, left);
        if (length == 0)
            return false;
    }
    return true;
}

/* File names may hold any bytes, JSON may not: those that are no UTF-8 are shown quoted. */
static void add_string(cJSON *object, const char *name, const char *value)
{
    char quoted[1024];
    if (value == NULL)
        cJSON_AddNullToObject(object, name);
    else if (is_utf8(value))
        cJSON_AddStringToObject(object, name, value);
    else
        cJSON_AddStringToObject(object, name,
                                error_quote(quoted, sizeof quoted, value, strlen(value)));
}

static void format_time(int64_t seconds, char *out, size_t capacity)
{
    struct tm utc;
    time_t when = (time_t)seconds;
    gmtime_r(&when, &utc);
    strftime(out, capacity, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static cJSON *error_json(const struct unshard_error *error)
{
    char when[32];
    cJSON *item = cJSON_CreateObject();
    add_string(item, "code", error->code);
    add_string(item, "message", error->message);
    if (error->offset != UNSHARD_NO_OFFSET)
        add_u64(item, "offset", error->offset);
    else
        cJSON_AddNullToObject(item, "offset");
    if (error->errno_value != 0)
        add_u64(item, "errno", (uint64_t)error->errno_value);
    else
        cJSON_AddNullToObject(item, "errno");
    format_time(error->time, when, sizeof when);
    add_string(item, "time", error->time != 0 ? when : NULL);
    return item;
}

static void add_error(cJSON *object, const struct unshard_error *error)
{
    if (error != NULL)
        cJSON_AddItemToObject(object, "error", error_json(error));
    else
        cJSON_AddNullToObject(object, "error");
}

/* A file that belongs to no component, and has an error: nothing else would tell of it. */
static bool is_other_failed(const struct unshard_checkpoint *checkpoint,
                            const struct snapshot *snapshot, uint32_t file)
{
    return checkpoint->files[file].component == NO_COMPONENT &&
           checkpoint->files[file].gathered == NULL && snapshot->files[file].has_error;
}

/* What has gone wrong since the mount was made, and not in a component. */
static unsigned count_new_problems(const struct unshard_checkpoint *checkpoint,
                                   const struct snapshot *snapshot)
{
    unsigned count = snapshot->source_gone;
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        count += is_other_failed(checkpoint, snapshot, i);
    return count;
}

static void add_problems(cJSON *object, const struct unshard_checkpoint *checkpoint,
                         const struct snapshot *snapshot)
{
    cJSON *list = cJSON_AddArrayToObject(object, "problems");
    if (snapshot->source_gone)
        cJSON_AddItemToArray(list, error_json(&snapshot->source_error));
    for (uint32_t i = 0; i < checkpoint->problem_count; i++)
        cJSON_AddItemToArray(list, error_json(&checkpoint->problems[i]));
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        if (is_other_failed(checkpoint, snapshot, i))
            cJSON_AddItemToArray(list, error_json(&snapshot->files[i].error));
}

static void add_notes(cJSON *object, const char *const *notes, uint32_t count)
{
    cJSON *list = cJSON_AddArrayToObject(object, "notes");
    for (uint32_t i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(notes[i]));
}

/* Its layout is not known, and only another mount can learn it. */
static bool is_unreadable(const struct unshard_checkpoint *checkpoint,
                          const struct component *component)
{
    return component->failed &&
           (component->view == UNSHARD_NO_VIEW || checkpoint->views[component->view].unreadable);
}

/* The word for a component from its shards: the worst news first. */
static const char *component_state(const struct unshard_checkpoint *checkpoint,
                                   const struct component *component,
                                   const struct snapshot *snapshot)
{
    unsigned done = 0, begun = 0, verified = 0;
    if (is_unreadable(checkpoint, component))
        return "failed";
    for (uint32_t i = 0; i < component->file_count; i++) {
        const char *state = snapshot->files[component->files[i]].state;
        assert(state != NULL); /* every file was copied */
        if (strcmp(state, "failed") == 0)
            return "failed";
        verified += strcmp(state, "verified") == 0;
        done += strcmp(state, "unverified") == 0 || strcmp(state, "verified") == 0;
        begun += strcmp(state, "pending") != 0;
    }
    if (done == component->file_count)
        return verified == done && done > 0 ? "verified" : "unverified";
    return begun > 0 ? "reading" : "pending";
}

static void add_mismatch(cJSON *object, const struct mismatch *mismatch)
{
    if (!mismatch->known) {
        cJSON_AddNullToObject(object, "mismatch");
        return;
    }
    cJSON *item = cJSON_AddObjectToObject(object, "mismatch");
    add_string(item, "algorithm", mismatch->algorithm);
    add_string(item, "expected", mismatch->expected);
    add_string(item, "actual", mismatch->actual);
    add_string(item, "origin", mismatch->origin);
}

static cJSON *shard_json(const struct source_file *file, const struct shard_snapshot *shard)
{
    cJSON *item = cJSON_CreateObject();
    add_string(item, "file", file->path);
    add_string(item, "state", shard->state);
    add_u64(item, "bytes_total", shard->bytes_total);
    add_u64(item, "bytes_read", shard->bytes_read);
    add_u64(item, "bytes_published", shard->bytes_published);
    add_string(item, "algorithm", shard->algorithm);
    add_string(item, "origin", shard->origin);
    add_error(item, shard->has_error ? &shard->error : NULL);
    add_mismatch(item, &shard->mismatch);
    return item;
}

static cJSON *component_json(const struct unshard_checkpoint *checkpoint,
                             const struct component *component, const struct snapshot *snapshot)
{
    uint64_t bytes_total = 0, bytes_published = 0;
    cJSON *item = cJSON_CreateObject();
    cJSON *shards = cJSON_CreateArray();
    for (uint32_t i = 0; i < component->file_count; i++) {
        const struct shard_snapshot *shard = &snapshot->files[component->files[i]];
        bytes_total += shard->bytes_total;
        bytes_published += shard->bytes_published;
        cJSON_AddItemToArray(shards, shard_json(&checkpoint->files[component->files[i]], shard));
    }
    add_string(item, "name", component->name);
    if (component->prefix != NULL && bytes_total > 0) {
        /* One of several in its files: what is there of these is there of it, on average. */
        bytes_published =
            (uint64_t)((double)component->bytes * (double)bytes_published / (double)bytes_total);
        bytes_total = component->bytes;
    }
    add_string(item, "view", component->view_path);
    add_string(item, "format", component->format);
    add_string(item, "prefix", component->prefix);
    add_string(item, "state", component_state(checkpoint, component, snapshot));
    add_u64(item, "bytes_total", bytes_total);
    add_u64(item, "bytes_published", bytes_published);
    bool failed = strcmp(component_state(checkpoint, component, snapshot), "failed") == 0;
    cJSON_AddBoolToObject(item, "evicted",
                          snapshot->component_evicted[component - checkpoint->components]);
    add_error(item, component->failed && failed ? &component->error : NULL);
    add_notes(item, component->notes, component->note_count);
    cJSON_AddItemToObject(item, "shards", shards);
    return item;
}

static const char *overall_state(const struct snapshot *snapshot,
                                 const struct unshard_fetch_options *options, unsigned failed,
                                 unsigned components, unsigned problems)
{
    if (snapshot->stopping)
        return "stopping";
    if (failed > 0)
        return failed == components ? "failed" : "degraded";
    if (problems > 0)
        return "degraded";
    if (snapshot->paused_reason != NULL)
        return "paused";
    if (options->prefetch == UNSHARD_PREFETCH_ALL && !snapshot->plan_done)
        return "prefetching";
    /* A chunk that was read and is not yet stored still has its buffer. */
    return snapshot->in_flight > 0 || snapshot->buffer_used > 0 ? "prefetching" : "ready";
}

static void add_stuck(cJSON *root, const struct unshard_checkpoint *checkpoint,
                      const struct snapshot *snapshot)
{
    cJSON *list = cJSON_AddArrayToObject(root, "stuck");
    for (unsigned i = 0; i < snapshot->stuck_count; i++) {
        cJSON *item = cJSON_CreateObject();
        add_string(item, "file", checkpoint->files[snapshot->stuck[i].file].path);
        add_u64(item, "offset", snapshot->stuck[i].offset);
        add_number(item, "seconds", (double)snapshot->stuck[i].age_ns / 1e9);
        cJSON_AddItemToArray(list, item);
    }
}

/* What the mount says of itself. */
static void add_mount_facts(cJSON *root, const struct unshard_engine *engine)
{
    struct unshard_mount_facts facts = {0};
    if (engine->publisher.describe != NULL)
        engine->publisher.describe(engine->publisher.context, &facts);
    add_string(root, "mountpoint", facts.mountpoint);
    if (facts.connection != 0)
        add_u64(root, "connection", facts.connection);
    else
        cJSON_AddNullToObject(root, "connection");
    if (facts.read_ahead_bytes != 0)
        add_u64(root, "read_ahead_bytes", facts.read_ahead_bytes);
    else
        cJSON_AddNullToObject(root, "read_ahead_bytes");
}

static void add_figures(cJSON *root, struct unshard_engine *engine, const struct snapshot *snapshot)
{
    static const char *const modes[] = {"all", "follow", "off"};
    static const char *const verifications[] = {"strict", "async", "off"};
    add_u64(root, "bytes_read", snapshot->bytes_read);
    add_u64(root, "bytes_stored", snapshot->bytes_stored);
    add_number(root, "rate_bytes_per_second", snapshot->rate);
    add_u64(root, "workers", snapshot->workers);
    add_u64(root, "jobs", snapshot->jobs);
    add_u64(root, "in_flight", snapshot->in_flight);
    add_u64(root, "stalled", snapshot->stalled);
    add_number(root, "oldest_request_seconds", (double)snapshot->oldest_ns / 1e9);
    add_u64(root, "chunk_bytes", engine->chunk_bytes);
    add_u64(root, "buffer_bytes", snapshot->buffer_total);
    add_u64(root, "buffer_used_bytes", snapshot->buffer_used);
    if (snapshot->window_limited)
        add_u64(root, "window_bytes", snapshot->window);
    else
        cJSON_AddNullToObject(root, "window_bytes");
    add_u64(root, "unconsumed_bytes", snapshot->unconsumed);
    add_u64(root, "readers", snapshot->readers);
    add_u64(root, "reads", snapshot->reads);
    add_u64(root, "chunks_evicted", snapshot->evicted);
    add_u64(root, "store_errors", snapshot->store_errors);
    add_u64(root, "bytes_dropped", snapshot->dropped);
    add_u64(root, "bytes_staged", snapshot->staged);
    add_stuck(root, engine->checkpoint, snapshot);
    add_string(root, "verify", verifications[engine->options.verify]);
    add_string(root, "prefetch", modes[engine->options.prefetch]);
    add_string(root, "paused_reason", snapshot->paused_reason);
}

static cJSON *root_json(struct unshard_engine *engine, const struct snapshot *snapshot)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    uint64_t total = 0, published = 0;
    unsigned failed = 0;
    char now[32];
    cJSON *root = cJSON_CreateObject();
    cJSON *components = cJSON_CreateArray();
    for (uint32_t i = 0; i < checkpoint->component_count; i++) {
        const struct component *component = &checkpoint->components[i];
        failed += strcmp(component_state(checkpoint, component, snapshot), "failed") == 0;
        cJSON_AddItemToArray(components, component_json(checkpoint, component, snapshot));
    }
    /* A file counts once, however many components it holds. */
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        if (checkpoint->files[i].component == NO_COMPONENT)
            continue;
        total += snapshot->files[i].bytes_total;
        published += snapshot->files[i].bytes_published;
    }
    format_time((int64_t)time(NULL), now, sizeof now);
    add_u64(root, "schema", 1);
    add_string(root, "version", UNSHARD_VERSION);
    add_u64(root, "pid", (uint64_t)getpid());
    add_string(root, "source", checkpoint->source);
    add_mount_facts(root, engine);
    unsigned problems = count_new_problems(checkpoint, snapshot);
    add_string(
        root, "state",
        overall_state(snapshot, &engine->options, failed, checkpoint->component_count, problems));
    add_string(root, "time", now);
    add_number(root, "uptime_seconds", (double)(engine_now_ns() - engine->start_ns) / 1e9);
    add_u64(root, "bytes_total", total);
    add_u64(root, "bytes_published", published);
    add_figures(root, engine, snapshot);
    add_u64(root, "errors", failed + checkpoint->problem_count + problems);
    cJSON_AddItemToObject(root, "components", components);
    add_problems(root, checkpoint, snapshot);
    add_notes(root, checkpoint->notes, checkpoint->note_count);
    return root;
}

char *unshard_status_json(struct unshard_engine *engine)
{
    struct snapshot snapshot;
    if (!take_snapshot(engine, &snapshot))
        return NULL;
    cJSON *root = root_json(engine, &snapshot);
    char *json = root != NULL ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    release_snapshot(&snapshot);
    struct text text = {0};
    if (json != NULL) {
        text_append_string(&text, json);
        text_append_string(&text, "\n");
        cJSON_free(json);
        return text_take(&text);
    }
    return NULL;
}

void error_line_append(struct text *text, const char *component, const char *file,
                       const struct unshard_error *error)
{
    char when[32] = "-", field[2048];
    if (error->time != 0)
        format_time(error->time, when, sizeof when);
    text_printf(text, "%s component=\"%s\"", when, error_field(field, sizeof field, component));
    text_printf(text, " shard=\"%s\" code=%s", error_field(field, sizeof field, file), error->code);
    if (error->offset != UNSHARD_NO_OFFSET)
        text_printf(text, " offset=%llu", (unsigned long long)error->offset);
    if (error->errno_value != 0)
        text_printf(text, " errno=%d", error->errno_value);
    text_printf(text, " message=\"%s\"\n", error_field(field, sizeof field, error->message));
}

char *unshard_status_errors(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    struct snapshot snapshot;
    struct text text = {0};
    if (!take_snapshot(engine, &snapshot))
        return NULL;
    if (snapshot.source_gone)
        error_line_append(&text, "-", "-", &snapshot.source_error);
    for (uint32_t i = 0; i < checkpoint->problem_count; i++)
        error_line_append(&text, "-", "-", &checkpoint->problems[i]);
    for (uint32_t i = 0; i < checkpoint->component_count; i++)
        if (checkpoint->components[i].failed &&
            strcmp(component_state(checkpoint, &checkpoint->components[i], &snapshot), "failed") ==
                0)
            error_line_append(&text, checkpoint->components[i].name, "-",
                              &checkpoint->components[i].error);
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        uint32_t component = checkpoint->files[i].component;
        if (!snapshot.files[i].has_error || checkpoint->files[i].gathered != NULL)
            continue;
        error_line_append(&text,
                          component != NO_COMPONENT ? checkpoint->components[component].name : "-",
                          checkpoint->files[i].path, &snapshot.files[i].error);
    }
    release_snapshot(&snapshot);
    return text_take(&text);
}

/* That of the component whose file the view is; where each file of it has a view of its own, of
 * that file. */
static const char *view_state(const struct unshard_checkpoint *checkpoint, const struct view *view,
                              const struct snapshot *snapshot)
{
    uint32_t file = view->map.count == 1 ? view->map.extents[0].source : EXTENT_LITERAL;
    if (file != EXTENT_LITERAL && checkpoint->files[file].as_is)
        return snapshot->files[file].state;
    return component_state(checkpoint, &checkpoint->components[view->component], snapshot);
}

const char *unshard_view_state(struct unshard_engine *engine, uint32_t view)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    struct snapshot snapshot;
    if (view >= checkpoint->view_count || checkpoint->views[view].component == NO_COMPONENT ||
        !take_snapshot(engine, &snapshot))
        return "unverified";
    const char *state = view_state(checkpoint, &checkpoint->views[view], &snapshot);
    release_snapshot(&snapshot);
    return state;
}
