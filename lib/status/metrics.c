/* SPDX-License-Identifier: MIT
 *
 * The status JSON in the OpenMetrics text format (version 1.0.0,
 * https://prometheus.io/docs/specs/om/open_metrics_spec/). Every sample carries
 * the mount point, so that the files of several mounts can be collected side by side. States are
 * gauges of 0 and 1 rather than state sets: collectors of the older text format, such as the
 * textfile collector of node_exporter, refuse types that they do not know.
 */
#include "base/text.h"
#include "base/utf8.h"
#include "status/json_fields.h"
#include "unshard.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number of the root of the document. */
struct figure {
    const char *key;
    const char *name; /* without the _total of a counter */
    const char *unit; /* the end of the name, or NULL */
    bool counter;
    const char *help;
};

static const struct figure figures[] = {
    {"uptime_seconds", "unshard_uptime_seconds", "seconds", false, "Time since the mount began."},
    {"bytes_total", "unshard_size_bytes", "bytes", false, "Size of all shards of all components."},
    {"bytes_published", "unshard_published_bytes", "bytes", false,
     "How much of that is in the page cache or was handed to readers."},
    {"bytes_read", "unshard_source_read_bytes", "bytes", true, "Read from the source."},
    {"bytes_stored", "unshard_stored_bytes", "bytes", true, "Put in the page cache."},
    {"jobs", "unshard_jobs", NULL, false, "Requests to the source that are allowed at a time."},
    {"workers", "unshard_workers", NULL, false, "Threads that fetch."},
    {"in_flight", "unshard_requests_in_flight", NULL, false, "Requests to the source under way."},
    {"stalled", "unshard_requests_stalled", NULL, false,
     "Requests to the source that have been under way for unusually long."},
    {"oldest_request_seconds", "unshard_oldest_request_seconds", "seconds", false,
     "Age of the oldest request to the source under way."},
    {"buffer_bytes", "unshard_buffer_bytes", "bytes", false, "Memory of the buffers."},
    {"buffer_used_bytes", "unshard_buffer_used_bytes", "bytes", false,
     "Memory of the buffers in use."},
    {"unconsumed_bytes", "unshard_unconsumed_bytes", "bytes", false,
     "Prefetched and not yet passed by a reader, as far as can be seen."},
    {"bytes_staged", "unshard_staged_bytes", "bytes", false,
     "Held back until the shard that they belong to has been verified."},
    {"bytes_dropped", "unshard_dropped_bytes", "bytes", true,
     "Taken out of the page cache again behind readers."},
    {"window_bytes", "unshard_window_bytes", "bytes", false,
     "How far prefetching goes ahead of readers; absent without a limit."},
    {"read_ahead_bytes", "unshard_read_ahead_bytes", "bytes", false,
     "What the kernel reads at once for a reader that finds nothing in the page cache."},
    {"readers", "unshard_readers", NULL, false, "Open files of the mount."},
    {"reads", "unshard_reads", NULL, true, "READ requests from the kernel."},
    {"chunks_evicted", "unshard_evicted_chunks", NULL, true,
     "Chunks found to have left the page cache."},
    {"store_errors", "unshard_store_errors", NULL, true,
     "Attempts to put a chunk in the page cache that failed."},
    {"errors", "unshard_failed_components", NULL, false, "Components that have failed."},
};

static const char *const mount_states[] = {"prefetching", "ready",  "paused",
                                           "degraded",    "failed", "stopping"};
static const char *const shard_states[] = {"pending", "reading", "verified", "unverified",
                                           "failed"};

/* What every sample of a document is written with. */
struct exposition {
    struct text text;
    const cJSON *root;
    const char *mountpoint;
};

/* Backslash, quote and newline are escaped in label values; what is no UTF-8 becomes '?'. */
static void append_escaped(struct text *text, const char *value)
{
    size_t left = strlen(value);
    while (left > 0) {
        size_t length = utf8_sequence((const unsigned char *)value, left);
        if (length == 0)
            text_append_string(text, "?");
        else if (*value == '\n')
            text_append_string(text, "\\n");
        else if (*value == '\\' || *value == '"')
            text_append(text, (char[]){'\\', *value}, 2);
        else
            text_append(text, value, length);
        length = length > 0 ? length : 1;
        value += length;
        left -= length;
    }
}

static void append_label(struct text *text, const char *name, const char *value)
{
    text_printf(text, ",%s=\"", name);
    append_escaped(text, value);
    text_append_string(text, "\"");
}

static void begin_family(struct exposition *to, const char *name, const char *type,
                         const char *unit, const char *help)
{
    text_printf(&to->text, "# TYPE %s %s\n", name, type);
    if (unit != NULL)
        text_printf(&to->text, "# UNIT %s %s\n", name, unit);
    text_printf(&to->text, "# HELP %s %s\n", name, help);
}

/* A sample up to the labels that are its own. */
static void begin_sample(struct exposition *to, const char *name, const char *suffix)
{
    text_printf(&to->text, "%s%s{mountpoint=\"", name, suffix);
    append_escaped(&to->text, to->mountpoint);
    text_append_string(&to->text, "\"");
}

static void end_sample(struct exposition *to, double value)
{
    if (value >= 0 && value < 9e15 && value == (double)(uint64_t)value)
        text_printf(&to->text, "} %llu\n", (unsigned long long)value);
    else
        text_printf(&to->text, "} %.17g\n", value);
}

static void append_figures(struct exposition *to)
{
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const struct figure *figure = &figures[i];
        if (!cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(to->root, figure->key)))
            continue;
        begin_family(to, figure->name, figure->counter ? "counter" : "gauge", figure->unit,
                     figure->help);
        begin_sample(to, figure->name, figure->counter ? "_total" : "");
        end_sample(to, field_number(to->root, figure->key));
    }
}

static void append_info(struct exposition *to)
{
    begin_family(to, "unshard_mount_info", "gauge", NULL, "What is mounted; always 1.");
    begin_sample(to, "unshard_mount_info", "");
    append_label(&to->text, "source", field_string(to->root, "source", ""));
    append_label(&to->text, "version", field_string(to->root, "version", ""));
    append_label(&to->text, "prefetch", field_string(to->root, "prefetch", ""));
    end_sample(to, 1);
}

static void append_mount_state(struct exposition *to)
{
    const char *state = field_string(to->root, "state", "");
    begin_family(to, "unshard_state", "gauge", NULL, "1 for the state that the mount is in.");
    for (size_t i = 0; i < sizeof mount_states / sizeof *mount_states; i++) {
        begin_sample(to, "unshard_state", "");
        append_label(&to->text, "state", mount_states[i]);
        end_sample(to, strcmp(state, mount_states[i]) == 0);
    }
}

/* ---- components --------------------------------------------------------------------------------
 */

static bool has_twin_before(const cJSON *component)
{
    for (const cJSON *other = component->prev; other != NULL && other->next != NULL;
         other = other->prev)
        if (strcmp(field_string(other, "name", ""), field_string(component, "name", "")) == 0)
            return true;
    return false;
}

/* Names are unique but for odd sets of files, which are numbered: no sample may come twice. */
static void append_component_label(struct exposition *to, const cJSON *component, unsigned number)
{
    const char *name = field_string(component, "name", "");
    if (!has_twin_before(component)) {
        append_label(&to->text, "component", name);
        return;
    }
    struct text numbered = {0};
    text_printf(&numbered, "%s #%u", name, number);
    char *string = text_take(&numbered);
    append_label(&to->text, "component", string != NULL ? string : "");
    to->text.failed |= string == NULL;
    free(string);
}

static void append_component_figure(struct exposition *to, const char *name, const char *unit,
                                    const char *key, const char *help)
{
    const cJSON *component;
    unsigned number = 0;
    begin_family(to, name, "gauge", unit, help);
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        begin_sample(to, name, "");
        append_component_label(to, component, ++number);
        end_sample(to, field_number(component, key));
    }
}

static void append_verified(struct exposition *to)
{
    const char *const name = "unshard_component_verified_bytes";
    const cJSON *component, *shard;
    unsigned number = 0;
    begin_family(to, name, "gauge", "bytes",
                 "Size of the shards that match a digest that was known before.");
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        double bytes = 0;
        cJSON_ArrayForEach(shard, field_array(component, "shards"))
        {
            if (field_is(shard, "state", "verified"))
                bytes += field_number(shard, "bytes_total");
        }
        begin_sample(to, name, "");
        append_component_label(to, component, ++number);
        end_sample(to, bytes);
    }
}

static void append_component_states(struct exposition *to)
{
    const cJSON *component;
    unsigned number = 0;
    begin_family(to, "unshard_component_state", "gauge", NULL,
                 "1 for the state that the component is in.");
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        number++;
        for (size_t i = 0; i < sizeof shard_states / sizeof *shard_states; i++) {
            begin_sample(to, "unshard_component_state", "");
            append_component_label(to, component, number);
            append_label(&to->text, "state", shard_states[i]);
            end_sample(to, field_is(component, "state", shard_states[i]));
        }
    }
}

static unsigned shards_in_state(const cJSON *component, const char *state)
{
    unsigned count = 0;
    const cJSON *shard;
    cJSON_ArrayForEach(shard, field_array(component, "shards"))
    {
        count += field_is(shard, "state", state);
    }
    return count;
}

static void append_shard_counts(struct exposition *to)
{
    const cJSON *component;
    unsigned number = 0;
    begin_family(to, "unshard_component_shards", "gauge", NULL, "Shards in each state.");
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        number++;
        for (size_t i = 0; i < sizeof shard_states / sizeof *shard_states; i++) {
            begin_sample(to, "unshard_component_shards", "");
            append_component_label(to, component, number);
            append_label(&to->text, "state", shard_states[i]);
            end_sample(to, shards_in_state(component, shard_states[i]));
        }
    }
}

/* Only shards that fail have samples of their own: a checkpoint may have thousands. */
static void append_failed_shards(struct exposition *to)
{
    const cJSON *component, *shard;
    unsigned number = 0;
    begin_family(to, "unshard_shard_failed", "gauge", NULL, "1 for each shard that fails.");
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        number++;
        cJSON_ArrayForEach(shard, field_array(component, "shards"))
        {
            const cJSON *error = field_object(shard, "error");
            if (error == NULL)
                continue;
            begin_sample(to, "unshard_shard_failed", "");
            append_component_label(to, component, number);
            append_label(&to->text, "shard", field_string(shard, "file", ""));
            append_label(&to->text, "code", field_string(error, "code", ""));
            end_sample(to, 1);
        }
    }
}

static void append_failed_components(struct exposition *to)
{
    const cJSON *component;
    unsigned number = 0;
    begin_family(to, "unshard_component_failed", "gauge", NULL,
                 "1 for each component that fails as a whole, a missing shard included.");
    cJSON_ArrayForEach(component, field_array(to->root, "components"))
    {
        const cJSON *error = field_object(component, "error");
        number++;
        if (error == NULL)
            continue;
        begin_sample(to, "unshard_component_failed", "");
        append_component_label(to, component, number);
        append_label(&to->text, "code", field_string(error, "code", ""));
        end_sample(to, 1);
    }
}

char *unshard_status_metrics(const char *json)
{
    cJSON *root = status_parse(json);
    if (root == NULL)
        return NULL;
    struct exposition to = {.root = root, .mountpoint = field_string(root, "mountpoint", "")};
    append_info(&to);
    append_mount_state(&to);
    append_figures(&to);
    append_component_figure(&to, "unshard_component_size_bytes", "bytes", "bytes_total",
                            "Size of the component's shards.");
    append_component_figure(&to, "unshard_component_published_bytes", "bytes", "bytes_published",
                            "In the page cache or handed to readers.");
    append_component_figure(&to, "unshard_component_evicted", NULL, "evicted",
                            "1 when its page cache was given back by request.");
    append_verified(&to);
    append_component_states(&to);
    append_shard_counts(&to);
    append_failed_components(&to);
    append_failed_shards(&to);
    text_append_string(&to.text, "# EOF\n");
    cJSON_Delete(root);
    return text_take(&to.text);
}
