/* SPDX-License-Identifier: MIT
 *
 * The status in the OpenMetrics text format (version 1.0.0,
 * https://prometheus.io/docs/specs/om/open_metrics_spec/). Every sample carries the mount point, so
 * that the files of several mounts can be collected side by side. States are gauges of 0 and 1
 * rather than state sets: collectors of the older text format, such as the textfile collector of
 * node_exporter, refuse types that they do not know.
 */
#include "base/text.h"
#include "status/words.h"

#include <stdlib.h>
#include <string.h>

/* What every sample of a document is written with. */
struct exposition {
    struct text text;
    const struct unshard_status *status;
    const char *mountpoint;
};

/* Backslash, quote and newline are escaped in label values. */
static void append_escaped(struct text *text, const char *value)
{
    char quoted[STATUS_NAME_CAPACITY];
    for (value = status_name(quoted, value); *value != '\0'; value++)
        if (*value == '\n')
            text_append_string(text, "\\n");
        else if (*value == '\\' || *value == '"')
            text_append(text, (char[]){'\\', *value}, 2);
        else
            text_append(text, value, 1);
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

/* A number of the whole. */
struct figure {
    const char *name; /* without the _total of a counter */
    const char *unit; /* the end of the name, or NULL */
    bool counter;
    const char *help;
    double value; /* ABSENT: there is none */
};

#define ABSENT (-1.0)

static void append_figures(struct exposition *to)
{
    const struct unshard_status *status = to->status;
    const struct figure figures[] = {
        {"unshard_uptime_seconds", "seconds", false,
         "Time since the daemon began to serve the mount.", status->uptime_seconds},
        {"unshard_restarts", NULL, true,
         "Daemons of the mount that have died or were upgraded, and were followed by another one.",
         (double)status->restarts},
        {"unshard_size_bytes", "bytes", false, "Size of all shards of all components.",
         (double)status->bytes_total},
        {"unshard_published_bytes", "bytes", false,
         "How much of that is in the page cache or was handed to readers.",
         (double)status->bytes_published},
        {"unshard_source_read_bytes", "bytes", true, "Read from the source.",
         (double)status->bytes_read},
        {"unshard_stored_bytes", "bytes", true, "Put in the page cache.",
         (double)status->bytes_stored},
        {"unshard_jobs", NULL, false, "Requests to the source that are allowed at a time.",
         (double)status->jobs},
        {"unshard_workers", NULL, false, "Threads that fetch.", (double)status->workers},
        {"unshard_requests_in_flight", NULL, false, "Requests to the source under way.",
         (double)status->in_flight},
        {"unshard_requests_stalled", NULL, false,
         "Requests to the source that have been under way for unusually long.",
         (double)status->stalled},
        {"unshard_oldest_request_seconds", "seconds", false,
         "Age of the oldest request to the source under way.", status->oldest_request_seconds},
        {"unshard_looks_stalled", NULL, false,
         "Looks at directories that have been under way for unusually long.",
         (double)status->looks.stalled},
        {"unshard_oldest_look_seconds", "seconds", false,
         "Age of the oldest look at a directory under way.", status->looks.oldest_seconds},
        {"unshard_buffer_bytes", "bytes", false, "Memory of the buffers.",
         (double)status->buffer_bytes},
        {"unshard_buffer_used_bytes", "bytes", false, "Memory of the buffers in use.",
         (double)status->buffer_used_bytes},
        {"unshard_unconsumed_bytes", "bytes", false,
         "Prefetched and not yet passed by a reader, as far as can be seen.",
         (double)status->unconsumed_bytes},
        {"unshard_staged_bytes", "bytes", false,
         "Held back until the shard that they belong to has been verified.",
         (double)status->bytes_staged},
        {"unshard_dropped_bytes", "bytes", true,
         "Taken out of the page cache again behind readers.", (double)status->bytes_dropped},
        {"unshard_window_bytes", "bytes", false,
         "How far prefetching goes ahead of readers; absent without a limit.",
         status->window_limited ? (double)status->window_bytes : ABSENT},
        {"unshard_read_ahead_bytes", "bytes", false,
         "What the kernel reads at once for a reader that finds nothing in the page cache.",
         status->read_ahead_bytes > 0 ? (double)status->read_ahead_bytes : ABSENT},
        {"unshard_readers", NULL, false, "Open files of the mount.", (double)status->readers},
        {"unshard_reads", NULL, true, "READ requests from the kernel.", (double)status->reads},
        {"unshard_evicted_chunks", NULL, true, "Chunks found to have left the page cache.",
         (double)status->chunks_evicted},
        {"unshard_store_errors", NULL, true,
         "Attempts to put a chunk in the page cache that failed.", (double)status->store_errors},
        {"unshard_failed_components", NULL, false, "Components that have failed.",
         (double)status->errors},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const struct figure *figure = &figures[i];
        if (figure->value < 0)
            continue;
        begin_family(to, figure->name, figure->counter ? "counter" : "gauge", figure->unit,
                     figure->help);
        begin_sample(to, figure->name, figure->counter ? "_total" : "");
        end_sample(to, figure->value);
    }
}

static const char *or_empty(const char *string)
{
    return string != NULL ? string : "";
}

static void append_info(struct exposition *to)
{
    begin_family(to, "unshard_mount_info", "gauge", NULL, "What is mounted; always 1.");
    begin_sample(to, "unshard_mount_info", "");
    append_label(&to->text, "source", or_empty(to->status->source));
    append_label(&to->text, "version", or_empty(to->status->version));
    append_label(&to->text, "prefetch", prefetch_name(to->status->prefetch));
    end_sample(to, 1);
}

/* The time tells an alert what a counter with one reason could not: whether the last restart was
 * meant. */
static void append_last_restart(struct exposition *to)
{
    static const char name[] = "unshard_last_restart_timestamp_seconds";
    const char *reason = restart_reason_of_name(to->status->restart_reason);
    if (to->status->restarts == 0 || to->status->restart_time <= 0)
        return;
    begin_family(to, name, "gauge", "seconds",
                 "When the last restart was, and why; absent when there was none.");
    begin_sample(to, name, "");
    append_label(&to->text, "reason", reason != NULL ? reason : "unknown");
    end_sample(to, (double)to->status->restart_time);
}

static void append_mount_state(struct exposition *to)
{
    begin_family(to, "unshard_state", "gauge", NULL, "1 for the state that the mount is in.");
    for (unsigned i = UNSHARD_MOUNT_UNKNOWN + 1; i < UNSHARD_MOUNT_STATE_COUNT; i++) {
        begin_sample(to, "unshard_state", "");
        append_label(&to->text, "state", unshard_mount_state_name(i));
        end_sample(to, to->status->state == i);
    }
}

/* ---- components --------------------------------------------------------------------------------
 */

static bool has_twin_before(const struct unshard_status *status, uint32_t number)
{
    for (uint32_t i = 0; i < number; i++)
        if (strcmp(status->components[i].name, status->components[number].name) == 0)
            return true;
    return false;
}

/* Names are unique but for odd sets of files, which are numbered: no sample may come twice. */
static void append_component_label(struct exposition *to, uint32_t number)
{
    const char *name = to->status->components[number].name;
    if (!has_twin_before(to->status, number)) {
        append_label(&to->text, "component", name);
        return;
    }
    struct text numbered = {0};
    text_printf(&numbered, "%s #%u", name, number + 1);
    char *string = text_take(&numbered);
    append_label(&to->text, "component", or_empty(string));
    to->text.failed |= string == NULL;
    free(string);
}

/* A sample of a component that has no further labels. */
static void append_component(struct exposition *to, const char *name, uint32_t number, double value)
{
    begin_sample(to, name, "");
    append_component_label(to, number);
    end_sample(to, value);
}

static void append_sizes(struct exposition *to)
{
    static const char size[] = "unshard_component_size_bytes";
    static const char published[] = "unshard_component_published_bytes";
    static const char evicted[] = "unshard_component_evicted";
    const struct unshard_component_status *components = to->status->components;
    begin_family(to, size, "gauge", "bytes", "Size of the component's shards.");
    for (uint32_t i = 0; i < to->status->component_count; i++)
        append_component(to, size, i, (double)components[i].bytes_total);
    begin_family(to, published, "gauge", "bytes", "In the page cache or handed to readers.");
    for (uint32_t i = 0; i < to->status->component_count; i++)
        append_component(to, published, i, (double)components[i].bytes_published);
    begin_family(to, evicted, "gauge", NULL, "1 when its page cache was given back by request.");
    for (uint32_t i = 0; i < to->status->component_count; i++)
        append_component(to, evicted, i, components[i].evicted);
}

static double verified_bytes(const struct unshard_component_status *component)
{
    double bytes = 0;
    for (uint32_t i = 0; i < component->shard_count; i++)
        if (component->shards[i]->state == UNSHARD_STATE_VERIFIED)
            bytes += (double)component->shards[i]->bytes_total;
    return bytes;
}

static void append_verified(struct exposition *to)
{
    static const char name[] = "unshard_component_verified_bytes";
    begin_family(to, name, "gauge", "bytes",
                 "Size of the shards that match a digest that was known before.");
    for (uint32_t i = 0; i < to->status->component_count; i++)
        append_component(to, name, i, verified_bytes(&to->status->components[i]));
}

/* One sample for each state that a shard or component can be in: what `value` says of it. */
static void append_by_state(struct exposition *to, const char *name, const char *help,
                            unsigned (*value)(const struct unshard_component_status *,
                                              enum unshard_state))
{
    begin_family(to, name, "gauge", NULL, help);
    for (uint32_t i = 0; i < to->status->component_count; i++)
        for (unsigned state = UNSHARD_STATE_UNKNOWN + 1; state < UNSHARD_STATE_COUNT; state++) {
            begin_sample(to, name, "");
            append_component_label(to, i);
            append_label(&to->text, "state", unshard_state_name(state));
            end_sample(to, value(&to->status->components[i], state));
        }
}

static unsigned is_in_state(const struct unshard_component_status *component,
                            enum unshard_state state)
{
    return component->state == state;
}

static unsigned shards_in_state(const struct unshard_component_status *component,
                                enum unshard_state state)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < component->shard_count; i++)
        count += component->shards[i]->state == state;
    return count;
}

/* Only shards that fail have samples of their own: a checkpoint may have thousands. */
static void append_failed_shards(struct exposition *to)
{
    begin_family(to, "unshard_shard_failed", "gauge", NULL, "1 for each shard that fails.");
    for (uint32_t i = 0; i < to->status->component_count; i++) {
        const struct unshard_component_status *component = &to->status->components[i];
        for (uint32_t k = 0; k < component->shard_count; k++) {
            const struct unshard_file_status *shard = component->shards[k];
            if (shard->error == NULL)
                continue;
            begin_sample(to, "unshard_shard_failed", "");
            append_component_label(to, i);
            append_label(&to->text, "shard", shard->path);
            append_label(&to->text, "code", shard->error->code);
            end_sample(to, 1);
        }
    }
}

static void append_failed_components(struct exposition *to)
{
    begin_family(to, "unshard_component_failed", "gauge", NULL,
                 "1 for each component that fails as a whole, a missing shard included.");
    for (uint32_t i = 0; i < to->status->component_count; i++) {
        const struct unshard_error *error = to->status->components[i].error;
        if (error == NULL)
            continue;
        begin_sample(to, "unshard_component_failed", "");
        append_component_label(to, i);
        append_label(&to->text, "code", error->code);
        end_sample(to, 1);
    }
}

char *unshard_status_metrics(const struct unshard_status *status)
{
    struct exposition to = {.status = status, .mountpoint = or_empty(status->mountpoint)};
    append_info(&to);
    append_mount_state(&to);
    append_figures(&to);
    append_last_restart(&to);
    append_sizes(&to);
    append_verified(&to);
    append_by_state(&to, "unshard_component_state", "1 for the state that the component is in.",
                    is_in_state);
    append_by_state(&to, "unshard_component_shards", "Shards in each state.", shards_in_state);
    append_failed_components(&to);
    append_failed_shards(&to);
    text_append_string(&to.text, "# EOF\n");
    return text_take(&to.text);
}
