/* SPDX-License-Identifier: MIT
 *
 * The status as text for a person. What is wrong comes first, then where the whole stands, then a
 * line per component and shard. No byte of a name reaches the terminal unquoted. */
#include "base/error.h"
#include "base/text.h"
#include "status/words.h"

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
    char name[STATUS_NAME_CAPACITY];
    string = status_name(name, string);
    return error_printable(out, QUOTED_CAPACITY, string, strlen(string));
}

static const char *or_unknown(const char *string)
{
    return string != NULL ? string : "?";
}

/* What to call a component: its name, but for the root's (".") that of its view. */
static const char *label_of(const struct unshard_component_status *component)
{
    bool root = strcmp(component->name, ".") == 0 && component->view != NULL;
    return root ? component->view : component->name;
}

/* ---- errors ------------------------------------------------------------------------------------
 */

/* "  FILE: MESSAGE (CODE, offset N, EIO, TIME)". Most messages begin with the file already; name is
 * NULL when all do. */
static void append_error(struct text *text, const char *name, const struct unshard_error *error)
{
    char quoted[QUOTED_CAPACITY], when[STATUS_TIME_CAPACITY], utf8[STATUS_NAME_CAPACITY];
    if (name == NULL || strstr(error->message, status_name(utf8, name)) != NULL)
        text_append_string(text, "  ");
    else
        text_printf(text, "  %s: ", quote(quoted, name));
    text_printf(text, "%s (", quote(quoted, error->message));
    text_printf(text, "%s", quote(quoted, error->code));
    if (error->offset != UNSHARD_NO_OFFSET)
        text_printf(text, ", offset %llu", (unsigned long long)error->offset);
    if (error->errno_value > 0 && strerrorname_np(error->errno_value) != NULL)
        text_printf(text, ", %s", strerrorname_np(error->errno_value));
    if (error->time != 0)
        text_printf(text, ", %s", status_time(when, error->time));
    text_append_string(text, ")\n");
}

/* What concerns no component, as the JSON has it among the problems. */
static void append_problems(struct text *text, const struct unshard_status *status)
{
    for (uint32_t i = 0; i < status->problem_count; i++)
        append_error(text, NULL, &status->problems[i]);
    for (uint32_t i = 0; i < status->file_count; i++)
        if (status->files[i]->component == NULL && status->files[i]->error != NULL)
            append_error(text, NULL, status->files[i]->error);
}

static void append_component_errors(struct text *text,
                                    const struct unshard_component_status *component)
{
    bool shard_failed = false;
    for (uint32_t i = 0; i < component->shard_count; i++) {
        const struct unshard_file_status *shard = component->shards[i];
        if (shard->error != NULL)
            append_error(text, shard->path, shard->error);
        shard_failed = shard_failed || shard->error != NULL;
    }
    /* A component's error repeats that of its shard, where there is one. */
    if (component->error != NULL && !shard_failed)
        append_error(text, label_of(component), component->error);
}

static void append_errors(struct text *text, const struct unshard_status *status)
{
    struct text errors = {0};
    append_problems(&errors, status);
    for (uint32_t i = 0; i < status->component_count; i++)
        append_component_errors(&errors, &status->components[i]);
    if (errors.length > 0)
        text_printf(text, "ERRORS\n%s\n", errors.data);
    text->failed |= errors.failed;
    text_free(&errors);
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

static void append_totals(struct text *text, const struct unshard_status *status)
{
    char done[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY], rate[UNSHARD_HUMAN_CAPACITY];
    struct progress all = {status->bytes_published, status->bytes_total};
    text_printf(text, "%s: %s of %s (%u %%)", unshard_mount_state_name(status->state),
                unshard_human_bytes(done, all.done), unshard_human_bytes(total, all.total),
                unshard_human_percent(all.done, all.total));
    text_printf(text, ", %s", unshard_human_rate(rate, status->rate_bytes_per_second));
    append_remaining_time(text, &all, status->rate_bytes_per_second);
    if (status->errors > 0)
        text_printf(text, ", %u error%s", status->errors, status->errors == 1 ? "" : "s");
}

/* A request that has been under way for so long is worth a line. */
#define OLD_REQUEST_SECONDS 5

/* "stalled: 3 requests; the oldest for 37 s: model-00002-of-00005.safetensors at offset 4194304" */
static void append_stalled(struct text *text, const struct unshard_status *status)
{
    char quoted[QUOTED_CAPACITY], age[UNSHARD_HUMAN_CAPACITY];
    if (status->oldest_request_seconds < OLD_REQUEST_SECONDS)
        return;
    text_printf(text, "stalled: %u request%s to the source; the oldest waits %s", status->stalled,
                status->stalled == 1 ? "" : "s",
                unshard_human_duration(age, status->oldest_request_seconds));
    if (status->stuck_count > 0)
        text_printf(text, ": %s at offset %llu", quote(quoted, status->stuck[0].file),
                    (unsigned long long)status->stuck[0].offset);
    text_append_string(text, "\n");
}

static void append_evicted(struct text *text, uint64_t chunks)
{
    if (chunks > 0)
        text_printf(text, "%llu chunk%s left the page cache and had to be read again\n",
                    (unsigned long long)chunks, chunks == 1 ? "" : "s");
}

/* What is in effect, whether it was asked for or found out. */
static void append_settings(struct text *text, const struct unshard_status *status)
{
    char chunk[UNSHARD_HUMAN_CAPACITY], window[UNSHARD_HUMAN_CAPACITY],
        ahead[UNSHARD_HUMAN_CAPACITY];
    if (status->chunk_bytes == 0)
        return;
    text_printf(text, "settings: prefetch=%s, verify=%s,", prefetch_name(status->prefetch),
                verify_name(status->verify));
    text_printf(text, " %u workers, chunk %s, window %s", status->workers,
                unshard_human_bytes(chunk, status->chunk_bytes),
                status->window_bytes > 0 ? unshard_human_bytes(window, status->window_bytes)
                                         : "unlimited");
    if (status->read_ahead_bytes > 0)
        text_printf(text, ", read-ahead %s", unshard_human_bytes(ahead, status->read_ahead_bytes));
    text_append_string(text, "\n");
}

static void append_work(struct text *text, const struct unshard_status *status)
{
    char used[UNSHARD_HUMAN_CAPACITY], buffer[UNSHARD_HUMAN_CAPACITY],
        ahead[UNSHARD_HUMAN_CAPACITY];
    text_printf(text, "%u of %u jobs busy, buffers %s of %s, %u reader%s", status->in_flight,
                status->jobs, unshard_human_bytes(used, status->buffer_used_bytes),
                unshard_human_bytes(buffer, status->buffer_bytes), status->readers,
                status->readers == 1 ? "" : "s");
    if (status->unconsumed_bytes > 0)
        text_printf(text, ", %s ahead of them",
                    unshard_human_bytes(ahead, status->unconsumed_bytes));
    text_append_string(text, "\n");
}

static void append_header(struct text *text, const struct unshard_status *status)
{
    char quoted[QUOTED_CAPACITY];
    text_append_string(text, quote(quoted, or_unknown(status->source)));
    if (status->mountpoint != NULL)
        text_printf(text, " on %s", quote(quoted, status->mountpoint));
    text_append_string(text, "\n");
    append_totals(text, status);
    text_append_string(text, "\n");
    if (status->paused_reason != NULL)
        text_printf(text, "paused: %s\n", quote(quoted, status->paused_reason));
    append_stalled(text, status);
    append_work(text, status);
    append_evicted(text, status->chunks_evicted);
    append_settings(text, status);
}

/* ---- components and shards ---------------------------------------------------------------------
 */

/* One line: name, bar, percentage, bytes, state. indent is part of the name's column. */
static void append_line(struct text *text, const struct layout *layout, unsigned indent,
                        const char *name, struct progress progress, const char *state)
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
        text_printf(text, "%s ",
                    unshard_human_bar(bar, sizeof bar, layout->bar, progress.done, progress.total));
    text_printf(text, "%3u %% ", unshard_human_percent(progress.done, progress.total));
    if (!layout->narrow)
        text_printf(text, "%10s ", unshard_human_bytes(done, progress.done));
    text_printf(text, "of %10s  ", unshard_human_bytes(total, progress.total));
    text_printf(text, "%s\n", state);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The ending says nothing that the component's format does not, and the number needs the room. */
static const char *shard_name(const struct unshard_file_status *shard, char out[NAME_CAPACITY])
{
    static const char ending[] = ".safetensors";
    char quoted[STATUS_NAME_CAPACITY];
    const char *name = base_name(status_name(quoted, shard->path));
    size_t length = strlen(name), ending_length = sizeof ending - 1;
    if (length > ending_length && strcmp(name + length - ending_length, ending) == 0)
        length -= ending_length;
    snprintf(out, NAME_CAPACITY, "%.*s", length < NAME_CAPACITY ? (int)length : NAME_CAPACITY,
             name);
    return out;
}

static void append_shard(struct text *text, const struct layout *layout,
                         const struct unshard_file_status *shard)
{
    char name[NAME_CAPACITY];
    append_line(text, layout, 2, shard_name(shard, name),
                (struct progress){shard->bytes_read, shard->bytes_total},
                unshard_state_name(shard->state));
}

/* "  163 shards: 12 pending, 8 reading, 143 verified" */
static void append_shard_counts(struct text *text, const struct unshard_component_status *component)
{
    static const enum unshard_state order[] = {UNSHARD_STATE_FAILED, UNSHARD_STATE_PENDING,
                                               UNSHARD_STATE_READING, UNSHARD_STATE_UNVERIFIED,
                                               UNSHARD_STATE_VERIFIED};
    unsigned counts[UNSHARD_STATE_COUNT] = {0};
    for (uint32_t i = 0; i < component->shard_count; i++)
        counts[component->shards[i]->state]++;
    text_printf(text, "  %u shards:", component->shard_count);
    const char *separator = " ";
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (counts[order[i]] == 0)
            continue;
        text_printf(text, "%s%u %s", separator, counts[order[i]], unshard_state_name(order[i]));
        separator = ", ";
    }
    text_append_string(text, "\n");
}

/* Lists the shards in `state`, at most `limit` of them. */
static void append_shards_in_state(struct text *text, const struct layout *layout,
                                   const struct unshard_component_status *component,
                                   enum unshard_state state, unsigned limit)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < component->shard_count; i++)
        if (component->shards[i]->state == state && count++ < limit)
            append_shard(text, layout, component->shards[i]);
    if (count > limit)
        text_printf(text, "  and %u more %s\n", count - limit, unshard_state_name(state));
}

static void append_shards(struct text *text, const struct layout *layout,
                          const struct unshard_component_status *component)
{
    if (component->shard_count <= SHARDS_LISTED) {
        for (uint32_t i = 0; i < component->shard_count; i++)
            append_shard(text, layout, component->shards[i]);
        return;
    }
    append_shard_counts(text, component);
    append_shards_in_state(text, layout, component, UNSHARD_STATE_FAILED, SHARDS_LISTED);
    append_shards_in_state(text, layout, component, UNSHARD_STATE_READING, SHARDS_LISTED / 2);
}

static void append_notes(struct text *text, const char *indent, const char *const *notes,
                         uint32_t count)
{
    char quoted[QUOTED_CAPACITY];
    for (uint32_t i = 0; i < count; i++)
        text_printf(text, "%snote: %s\n", indent, quote(quoted, notes[i]));
}

static void append_component(struct text *text, const struct layout *layout,
                             const struct unshard_component_status *component)
{
    char state[NAME_CAPACITY];
    snprintf(state, sizeof state, "%s%s", unshard_state_name(component->state),
             component->evicted ? ", evicted" : "");
    text_append_string(text, "\n");
    append_line(text, layout, 0, label_of(component),
                (struct progress){component->bytes_published, component->bytes_total}, state);
    append_shards(text, layout, component);
    append_notes(text, "  ", component->notes, component->note_count);
}

static size_t longest_name(const struct unshard_status *status)
{
    char name[NAME_CAPACITY], quoted[STATUS_NAME_CAPACITY];
    size_t longest = 8;
    for (uint32_t i = 0; i < status->component_count; i++) {
        const struct unshard_component_status *component = &status->components[i];
        size_t columns = unshard_human_columns(status_name(quoted, label_of(component)));
        longest = columns > longest ? columns : longest;
        for (uint32_t k = 0; k < component->shard_count; k++) {
            columns = 2 + unshard_human_columns(shard_name(component->shards[k], name));
            longest = columns > longest ? columns : longest;
        }
    }
    return longest;
}

/* The name column takes what the longest name needs; on a terminal at most half of the width. */
static struct layout layout_for(const struct unshard_status *status, unsigned width)
{
    struct layout layout = {.width = width, .narrow = width > 0 && width < NARROW};
    size_t longest = longest_name(status);
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

char *unshard_status_text(const struct unshard_status *status, unsigned width)
{
    struct text text = {0};
    struct layout layout = layout_for(status, width);
    append_errors(&text, status);
    append_header(&text, status);
    for (uint32_t i = 0; i < status->component_count; i++)
        append_component(&text, &layout, &status->components[i]);
    if (status->note_count > 0) {
        text_append_string(&text, "\n");
        append_notes(&text, "", status->notes, status->note_count);
    }
    return text_take(&text);
}

/* "; transformer 45 % reading; vae 0 % failed": of those that are not done, the first few. */
static void append_unfinished(struct text *text, const struct unshard_status *status)
{
    char quoted[QUOTED_CAPACITY];
    unsigned listed = 0;
    for (uint32_t i = 0; i < status->component_count && listed < COMPONENTS_SUMMARISED; i++) {
        const struct unshard_component_status *component = &status->components[i];
        if (component->bytes_published >= component->bytes_total && component->error == NULL)
            continue;
        text_printf(text, "; %s %u %% %s", quote(quoted, label_of(component)),
                    unshard_human_percent(component->bytes_published, component->bytes_total),
                    unshard_state_name(component->state));
        listed++;
    }
}

char *unshard_status_summary(const struct unshard_status *status)
{
    struct text text = {0};
    char quoted[QUOTED_CAPACITY], when[STATUS_TIME_CAPACITY];
    text_printf(&text, "%s ", status->time != 0 ? status_time(when, status->time) : "-");
    text_printf(&text, "%s ", status->source != NULL ? quote(quoted, status->source) : "-");
    append_totals(&text, status);
    if (status->paused_reason != NULL)
        text_printf(&text, ", paused: %s", quote(quoted, status->paused_reason));
    append_unfinished(&text, status);
    return text_take(&text);
}
