/* SPDX-License-Identifier: MIT
 *
 * The status JSON as text for a person. What is wrong comes first, then where the whole stands,
 * then a line per component and shard. The JSON may come from another version of the program or
 * from a file anybody wrote: every field is optional, and no byte of a name reaches the terminal
 * unquoted. */
#include "status/status_text.h"
#include "base/error.h"
#include "base/text.h"
#include "status/json_fields.h"
#include "unshard.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Above this many shards only those that say something are listed. */
#define SHARDS_LISTED 20
#define COMPONENTS_SUMMARISED 4
/* Columns below which a line leaves something out. */
#define NARROW 110
/* A shard name has at most 255 bytes, each of which may be quoted as \xNN; a path is cut. */
#define QUOTED_CAPACITY 1100
#define BAR_CAPACITY 64
#define NAME_CAPACITY 256

struct layout {
    unsigned width; /* 0: plain lines, no bars */
    unsigned name, bar;
    bool narrow; /* no room for the bytes done */
};

struct progress {
    uint64_t done, total;
};

static const char *quote(char out[QUOTED_CAPACITY], const char *string)
{
    return error_printable(out, QUOTED_CAPACITY, string, strlen(string));
}

/* ---- errors ------------------------------------------------------------------------------------
 */

/* "  FILE: MESSAGE (CODE, offset N, EIO, TIME)". Most messages begin with the file already; name is
 * NULL when all do. */
static void append_error(struct text *text, const char *name, const cJSON *error)
{
    char quoted[QUOTED_CAPACITY];
    const char *message = field_string(error, "message", "no message");
    if (name == NULL || strstr(message, name))
        text_append_string(text, "  ");
    else
        text_printf(text, "  %s: ", quote(quoted, name));
    text_printf(text, "%s (", quote(quoted, message));
    text_printf(text, "%s", quote(quoted, field_string(error, "code", "error")));
    const cJSON *offset = cJSON_GetObjectItemCaseSensitive(error, "offset");
    if (cJSON_IsNumber(offset))
        text_printf(text, ", offset %llu", (unsigned long long)field_bytes(error, "offset"));
    int number = (int)field_count(error, "errno");
    if (number > 0 && strerrorname_np(number))
        text_printf(text, ", %s", strerrorname_np(number));
    const char *time = field_string(error, "time", NULL);
    if (time)
        text_printf(text, ", %s", quote(quoted, time));
    text_append_string(text, ")\n");
}

static void append_errors(struct text *text, const cJSON *root)
{
    bool any = false;
    const cJSON *component, *shard, *problem;
    cJSON_ArrayForEach(problem, field_array(root, "problems"))
    {
        text_append_string(text, any ? "" : "ERRORS\n");
        append_error(text, NULL, problem);
        any = true;
    }
    cJSON_ArrayForEach(component, field_array(root, "components"))
    {
        bool shard_failed = false;
        cJSON_ArrayForEach(shard, field_array(component, "shards"))
        {
            if (!field_object(shard, "error"))
                continue;
            text_append_string(text, any ? "" : "ERRORS\n");
            append_error(text, field_string(shard, "file", "?"), field_object(shard, "error"));
            any = shard_failed = true;
        }
        /* A component's error repeats that of its shard, where there is one. */
        if (!field_object(component, "error") || shard_failed)
            continue;
        text_append_string(text, any ? "" : "ERRORS\n");
        append_error(text, status_component_label(component), field_object(component, "error"));
        any = true;
    }
    if (any)
        text_append_string(text, "\n");
}

/* ---- header ------------------------------------------------------------------------------------
 */

static void append_remaining_time(struct text *text, const struct progress *all, double rate)
{
    if (rate < 1 || all->done >= all->total)
        return;
    char duration[UNSHARD_HUMAN_CAPACITY];
    text_printf(text, ", %s left",
                unshard_human_duration(duration, (double)(all->total - all->done) / rate));
}

static void append_totals(struct text *text, const cJSON *root)
{
    char quoted[QUOTED_CAPACITY], done[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY];
    char rate_text[UNSHARD_HUMAN_CAPACITY];
    struct progress all = {field_bytes(root, "bytes_published"), field_bytes(root, "bytes_total")};
    double rate = field_number(root, "rate_bytes_per_second");
    text_printf(text, "%s: %s of %s (%u %%)", quote(quoted, field_string(root, "state", "unknown")),
                unshard_human_bytes(done, all.done), unshard_human_bytes(total, all.total),
                unshard_human_percent(all.done, all.total));
    text_printf(text, ", %s", unshard_human_rate(rate_text, rate));
    append_remaining_time(text, &all, rate);
    unsigned errors = field_count(root, "errors");
    if (errors > 0)
        text_printf(text, ", %u error%s", errors, errors == 1 ? "" : "s");
}

/* A request that has been under way for so long is worth a line. */
#define OLD_REQUEST_SECONDS 5

/* "stalled: 3 requests; the oldest for 37 s: model-00002-of-00005.safetensors at offset 4194304" */
static void append_stalled(struct text *text, const cJSON *root)
{
    char quoted[QUOTED_CAPACITY], age[UNSHARD_HUMAN_CAPACITY];
    double oldest = field_number(root, "oldest_request_seconds");
    const cJSON *request = cJSON_GetArrayItem(field_array(root, "stuck"), 0);
    unsigned stalled = field_count(root, "stalled");
    if (oldest < OLD_REQUEST_SECONDS)
        return;
    text_printf(text, "stalled: %u request%s to the source; the oldest waits %s", stalled,
                stalled == 1 ? "" : "s", unshard_human_duration(age, oldest));
    if (cJSON_IsObject(request))
        text_printf(text, ": %s at offset %llu", quote(quoted, field_string(request, "file", "?")),
                    (unsigned long long)field_bytes(request, "offset"));
    text_append_string(text, "\n");
}

static void append_evicted(struct text *text, const cJSON *root)
{
    unsigned chunks = field_count(root, "chunks_evicted");
    if (chunks > 0)
        text_printf(text, "%u chunk%s left the page cache and had to be read again\n", chunks,
                    chunks == 1 ? "" : "s");
}

static void append_setting(struct text *text, const cJSON *root, const char *key)
{
    char quoted[QUOTED_CAPACITY];
    const char *value = field_string(root, key, NULL);
    if (value)
        text_printf(text, " %s=%s,", key, quote(quoted, value));
}

/* What is in effect, whether it was asked for or found out. */
static void append_settings(struct text *text, const cJSON *root)
{
    char chunk[UNSHARD_HUMAN_CAPACITY], window[UNSHARD_HUMAN_CAPACITY],
        ahead[UNSHARD_HUMAN_CAPACITY];
    if (field_bytes(root, "chunk_bytes") == 0)
        return;
    text_append_string(text, "settings:");
    append_setting(text, root, "prefetch");
    append_setting(text, root, "verify");
    text_printf(text, " %u workers, chunk %s, window %s", field_count(root, "workers"),
                unshard_human_bytes(chunk, field_bytes(root, "chunk_bytes")),
                field_bytes(root, "window_bytes")
                    ? unshard_human_bytes(window, field_bytes(root, "window_bytes"))
                    : "unlimited");
    if (field_bytes(root, "read_ahead_bytes") > 0)
        text_printf(text, ", read-ahead %s",
                    unshard_human_bytes(ahead, field_bytes(root, "read_ahead_bytes")));
    text_append_string(text, "\n");
}

static void append_work(struct text *text, const cJSON *root)
{
    char used[UNSHARD_HUMAN_CAPACITY], buffer[UNSHARD_HUMAN_CAPACITY],
        ahead[UNSHARD_HUMAN_CAPACITY];
    text_printf(text, "%u of %u jobs busy, buffers %s of %s, %u reader%s",
                field_count(root, "in_flight"), field_count(root, "jobs"),
                unshard_human_bytes(used, field_bytes(root, "buffer_used_bytes")),
                unshard_human_bytes(buffer, field_bytes(root, "buffer_bytes")),
                field_count(root, "readers"), field_count(root, "readers") == 1 ? "" : "s");
    if (field_bytes(root, "unconsumed_bytes") > 0)
        text_printf(text, ", %s ahead of them",
                    unshard_human_bytes(ahead, field_bytes(root, "unconsumed_bytes")));
    text_append_string(text, "\n");
}

static void append_header(struct text *text, const cJSON *root)
{
    char quoted[QUOTED_CAPACITY];
    text_printf(text, "%s", quote(quoted, field_string(root, "source", "?")));
    const char *mountpoint = field_string(root, "mountpoint", NULL);
    if (mountpoint)
        text_printf(text, " on %s", quote(quoted, mountpoint));
    text_append_string(text, "\n");
    append_totals(text, root);
    text_append_string(text, "\n");
    const char *reason = field_string(root, "paused_reason", NULL);
    if (reason)
        text_printf(text, "paused: %s\n", quote(quoted, reason));
    append_stalled(text, root);
    append_work(text, root);
    append_evicted(text, root);
    append_settings(text, root);
}

/* ---- components and shards ---------------------------------------------------------------------
 */

/* One line: name, bar, percentage, bytes, state. indent is part of the name's column. */
static void append_line(struct text *text, const struct layout *layout, unsigned indent,
                        const char *name, const struct progress *progress, const char *state)
{
    char quoted[QUOTED_CAPACITY], bar[BAR_CAPACITY], done[UNSHARD_HUMAN_CAPACITY],
        total[UNSHARD_HUMAN_CAPACITY];
    quote(quoted, name);
    unsigned column = layout->name > indent ? layout->name - indent : 1;
    const char *shown = unshard_human_tail(quoted, column);
    size_t columns = unshard_human_columns(shown);
    unsigned pad = columns < column ? (unsigned)(column - columns) : 0;
    text_printf(text, "%*s%s%*s ", (int)indent, "", shown, (int)pad, "");
    if (layout->width)
        text_printf(
            text, "%s ",
            unshard_human_bar(bar, sizeof bar, layout->bar, progress->done, progress->total));
    text_printf(text, "%3u %% ", unshard_human_percent(progress->done, progress->total));
    if (!layout->narrow)
        text_printf(text, "%10s ", unshard_human_bytes(done, progress->done));
    text_printf(text, "of %10s  ", unshard_human_bytes(total, progress->total));
    text_printf(text, "%s\n", quote(quoted, state));
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The ending says nothing that the component's format does not, and the number needs the room. */
static const char *shard_name(const cJSON *shard, char out[NAME_CAPACITY])
{
    static const char ending[] = ".safetensors";
    const char *name = base_name(field_string(shard, "file", "?"));
    size_t length = strlen(name), ending_length = sizeof ending - 1;
    if (length > ending_length && strcmp(name + length - ending_length, ending) == 0)
        length -= ending_length;
    snprintf(out, NAME_CAPACITY, "%.*s", length < NAME_CAPACITY ? (int)length : NAME_CAPACITY,
             name);
    return out;
}

static void append_shard(struct text *text, const struct layout *layout, const cJSON *shard)
{
    struct progress progress = {field_bytes(shard, "bytes_read"),
                                field_bytes(shard, "bytes_total")};
    char name[NAME_CAPACITY];
    append_line(text, layout, 2, shard_name(shard, name), &progress,
                field_string(shard, "state", "unknown"));
}

/* "  163 shards: 12 pending, 8 reading, 143 verified" */
static void append_shard_counts(struct text *text, const cJSON *shards)
{
    static const char *const states[] = {"failed", "pending", "reading", "unverified", "verified"};
    text_printf(text, "  %d shards:", cJSON_GetArraySize(shards));
    const char *separator = " ";
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        unsigned count = 0;
        const cJSON *shard;
        cJSON_ArrayForEach(shard, shards)
        {
            count += strcmp(field_string(shard, "state", ""), states[i]) == 0;
        }
        if (count == 0)
            continue;
        text_printf(text, "%s%u %s", separator, count, states[i]);
        separator = ", ";
    }
    text_append_string(text, "\n");
}

/* Lists the shards in `state`, at most `limit` of them. */
static void append_shards_in_state(struct text *text, const struct layout *layout,
                                   const cJSON *shards, const char *state, unsigned limit)
{
    unsigned count = 0;
    const cJSON *shard;
    cJSON_ArrayForEach(shard, shards)
    {
        if (strcmp(field_string(shard, "state", ""), state) == 0 && count++ < limit)
            append_shard(text, layout, shard);
    }
    if (count > limit)
        text_printf(text, "  and %u more %s\n", count - limit, state);
}

static void append_shards(struct text *text, const struct layout *layout, const cJSON *shards)
{
    const cJSON *shard;
    if (cJSON_GetArraySize(shards) <= SHARDS_LISTED) {
        cJSON_ArrayForEach(shard, shards)
        {
            append_shard(text, layout, shard);
        }
        return;
    }
    append_shard_counts(text, shards);
    append_shards_in_state(text, layout, shards, "failed", SHARDS_LISTED);
    append_shards_in_state(text, layout, shards, "reading", SHARDS_LISTED / 2);
}

static void append_notes(struct text *text, const char *indent, const cJSON *notes)
{
    char quoted[QUOTED_CAPACITY];
    const cJSON *note;
    cJSON_ArrayForEach(note, notes)
    {
        if (cJSON_IsString(note))
            text_printf(text, "%snote: %s\n", indent, quote(quoted, note->valuestring));
    }
}

static void append_component(struct text *text, const struct layout *layout, const cJSON *component)
{
    struct progress progress = {field_bytes(component, "bytes_published"),
                                field_bytes(component, "bytes_total")};
    char state[NAME_CAPACITY];
    snprintf(state, sizeof state, "%s%s", field_string(component, "state", "unknown"),
             field_number(component, "evicted") > 0 ? ", evicted" : "");
    text_append_string(text, "\n");
    append_line(text, layout, 0, status_component_label(component), &progress, state);
    append_shards(text, layout, field_array(component, "shards"));
    append_notes(text, "  ", field_array(component, "notes"));
}

/* The name column takes what the longest name needs; on a terminal at most half of the width. */
static struct layout layout_for(const cJSON *root, unsigned width)
{
    struct layout layout = {.width = width};
    size_t longest = 8;
    const cJSON *component, *shard;
    cJSON_ArrayForEach(component, field_array(root, "components"))
    {
        size_t columns = unshard_human_columns(status_component_label(component));
        longest = columns > longest ? columns : longest;
        cJSON_ArrayForEach(shard, field_array(component, "shards"))
        {
            char name[NAME_CAPACITY];
            columns = 2 + unshard_human_columns(shard_name(shard, name));
            longest = columns > longest ? columns : longest;
        }
    }
    layout.narrow = width > 0 && width < NARROW;
    const unsigned least_bar = 4;
    /* Percentage, bytes, state, spaces and brackets. */
    unsigned figures = layout.narrow ? 36 : 47;
    unsigned room = width > figures + least_bar ? width - figures - least_bar : 0;
    unsigned most = room < width / 2 ? room : width / 2;
    most = most > 12 ? most : 12;
    layout.name = longest < most || width == 0 ? (unsigned)longest : most;
    unsigned taken = layout.name + figures;
    layout.bar = width > taken + least_bar ? width - taken : least_bar;
    layout.bar = layout.bar < 40 ? layout.bar : 40;
    return layout;
}

char *unshard_status_text(const char *json, unsigned width)
{
    cJSON *root = status_parse(json);
    if (!root)
        return NULL;
    struct text text = {0};
    struct layout layout = layout_for(root, width);
    append_errors(&text, root);
    append_header(&text, root);
    const cJSON *component;
    cJSON_ArrayForEach(component, field_array(root, "components"))
    {
        append_component(&text, &layout, component);
    }
    if (cJSON_GetArraySize(field_array(root, "notes")) > 0) {
        text_append_string(&text, "\n");
        append_notes(&text, "", field_array(root, "notes"));
    }
    cJSON_Delete(root);
    return text_take(&text);
}

/* ", transformer 45 %, vae 100 %": of the components that are not done, the first few. */
static void append_unfinished(struct text *text, const cJSON *root)
{
    char quoted[QUOTED_CAPACITY];
    unsigned listed = 0;
    const cJSON *component;
    cJSON_ArrayForEach(component, field_array(root, "components"))
    {
        uint64_t done = field_bytes(component, "bytes_published");
        uint64_t total = field_bytes(component, "bytes_total");
        if (listed == COMPONENTS_SUMMARISED)
            break;
        if (done >= total && !field_object(component, "error"))
            continue;
        text_printf(text, "; %s ", quote(quoted, status_component_label(component)));
        text_printf(text, "%u %% %s", unshard_human_percent(done, total),
                    quote(quoted, field_string(component, "state", "unknown")));
        listed++;
    }
}

char *status_summary_line(const char *json)
{
    cJSON *root = status_parse(json);
    if (!root)
        return NULL;
    struct text text = {0};
    char quoted[QUOTED_CAPACITY];
    text_printf(&text, "%s ", quote(quoted, field_string(root, "time", "-")));
    text_printf(&text, "%s ", quote(quoted, field_string(root, "source", "-")));
    append_totals(&text, root);
    const char *reason = field_string(root, "paused_reason", NULL);
    if (reason)
        text_printf(&text, ", paused: %s", quote(quoted, reason));
    append_unfinished(&text, root);
    cJSON_Delete(root);
    return text_take(&text);
}
