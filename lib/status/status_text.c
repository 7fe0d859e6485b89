/* SPDX-License-Identifier: MIT
 *
 * The status as text for a person. What is wrong comes first, then where the whole stands, then a
 * line per component and shard. No byte of a name reaches the terminal unquoted.
 *
 * A picture of it is the same with colours, and as much of it as there are rows: what is done is
 * told in fewer words first, then what is being done; errors are cut when there are too many. */
#include "base/text.h"
#include "status/drawing.h"
#include "status/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENTS_SUMMARISED 4
#define LONGEST_BAR 100 /* of the whole; those of its parts are shorter */

static const char *or_unknown(const char *string)
{
    return string != NULL ? string : "?";
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
        text_printf(text, "  %s: ", draw_quoted(quoted, name));
    text_printf(text, "%s (", draw_quoted(quoted, error->message));
    text_printf(text, "%s", draw_quoted(quoted, error->code));
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
        append_error(text, draw_label(component), component->error);
}

/* Cuts what comes after `limit` lines, and says how many these are. */
static void keep_lines(struct text *text, unsigned limit)
{
    unsigned lines = 0, left = 0;
    size_t end = text->length;
    for (size_t i = 0; i < text->length; i++)
        if (text->data[i] == '\n' && ++lines == limit)
            end = i + 1;
    left = lines > limit ? lines - limit : 0;
    if (left == 0)
        return;
    text->length = end;
    text_printf(text, "  and %u more\n", left);
}

static void append_errors(struct text *text, const struct layout *layout,
                          const struct unshard_status *status)
{
    struct text errors = {0};
    append_problems(&errors, status);
    for (uint32_t i = 0; i < status->component_count; i++)
        append_component_errors(&errors, &status->components[i]);
    if (layout->rows > 0 && layout->detail != DETAIL_ALL)
        keep_lines(&errors, layout->rows / 8 + 1);
    if (errors.length > 0) {
        draw_coloured(text, layout, BOLD ";" RED, "ERRORS");
        text_append_string(text, "\n");
        draw_wrapped(text, layout->width, errors.data);
        text_append_string(text, "\n");
    }
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

static void append_totals(struct text *text, const struct layout *layout,
                          const struct unshard_status *status)
{
    char done[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY], rate[UNSHARD_HUMAN_CAPACITY];
    struct progress all = {status->bytes_published, status->bytes_total};
    draw_coloured(text, layout, colour_of_mount(status->state),
                  unshard_mount_state_name(status->state));
    text_printf(text, ": %s of %s (%u %%)", unshard_human_bytes(done, all.done),
                unshard_human_bytes(total, all.total), unshard_human_percent(all.done, all.total));
    text_printf(text, ", %s", unshard_human_rate(rate, status->rate_bytes_per_second));
    append_remaining_time(text, &all, status->rate_bytes_per_second);
    if (status->errors > 0)
        text_printf(text, ", %u error%s", status->errors, status->errors == 1 ? "" : "s");
}

/* A request or a look that has been under way for so long is worth a line. */
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
        text_printf(text, ": %s at offset %llu", draw_quoted(quoted, status->stuck[0].file),
                    (unsigned long long)status->stuck[0].offset);
    text_append_string(text, "\n");
}

/* "stalled: 2 looks at directories; the oldest waits 37 s: text_encoder" */
static void append_stalled_looks(struct text *text, const struct unshard_looks *looks)
{
    char quoted[QUOTED_CAPACITY], age[UNSHARD_HUMAN_CAPACITY];
    if (looks->stuck_count == 0 || looks->stuck[0].seconds < OLD_REQUEST_SECONDS)
        return;
    text_printf(text, "stalled: %u look%s at directories; the oldest waits %s: ", looks->stalled,
                looks->stalled == 1 ? "" : "s",
                unshard_human_duration(age, looks->stuck[0].seconds));
    text_printf(text, "%s\n", draw_quoted(quoted, looks->stuck[0].directory));
}

static void append_evicted(struct text *text, uint64_t chunks)
{
    if (chunks > 0)
        text_printf(text, "%llu chunk%s left the page cache and had to be read again\n",
                    (unsigned long long)chunks, chunks == 1 ? "" : "s");
}

/* "2 restarts of the daemon (the last: killed, 2026-11-24T10:00:00Z)" */
static void append_restarts(struct text *text, const struct unshard_status *status)
{
    const char *reason = restart_reason_of_name(status->restart_reason);
    char when[STATUS_TIME_CAPACITY];
    if (status->restarts == 0)
        return;
    text_printf(text, "%u restart%s", status->restarts, status->restarts == 1 ? "" : "s");
    text_printf(text, " of the daemon (%s", status->restarts == 1 ? "" : "the last: ");
    text_append_string(text, reason != NULL ? reason : "unknown");
    if (status->restart_time != 0)
        text_printf(text, ", %s", status_time(when, status->restart_time));
    text_append_string(text, ")\n");
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

/* The whole as a bar, where it is for a terminal. */
static void append_whole(struct text *text, const struct layout *layout,
                         const struct unshard_status *status)
{
    struct progress all = {status->bytes_published, status->bytes_total};
    if (layout->width <= LEAST_BAR)
        return;
    unsigned width = layout->width - 3; /* the brackets, and what would be a new line */
    draw_bar(text, layout, width < LONGEST_BAR ? width : LONGEST_BAR, all,
             colour_of_mount(status->state));
    text_append_string(text, "\n");
}

/* Components that are parts of one file all have its shards, which count once. */
static bool has_counted_shards(const struct unshard_status *status, uint32_t number)
{
    const struct unshard_component_status *component = &status->components[number];
    if (component->prefix == NULL || component->shard_count == 0)
        return false;
    for (uint32_t i = 0; i < number; i++)
        if (status->components[i].shard_count > 0 &&
            strcmp(status->components[i].shards[0]->path, component->shards[0]->path) == 0)
            return true;
    return false;
}

/* Of several components; what there is of a single one follows anyway. */
static void append_all_shard_counts(struct text *text, const struct layout *layout,
                                    const struct unshard_status *status)
{
    unsigned counts[UNSHARD_STATE_COUNT] = {0};
    if (status->component_count < 2)
        return;
    for (uint32_t i = 0; i < status->component_count; i++)
        if (!has_counted_shards(status, i))
            count_shards(&status->components[i], counts);
    draw_shard_counts(text, layout, counts);
}

static void append_header(struct text *text, const struct layout *layout,
                          const struct unshard_status *status)
{
    char quoted[QUOTED_CAPACITY];
    draw_coloured(text, layout, BOLD, draw_quoted(quoted, or_unknown(status->source)));
    if (status->mountpoint != NULL)
        text_printf(text, " on %s", draw_quoted(quoted, status->mountpoint));
    text_append_string(text, "\n");
    append_whole(text, layout, status);
    append_totals(text, layout, status);
    text_append_string(text, "\n");
    append_all_shard_counts(text, layout, status);
    if (status->paused_reason != NULL)
        text_printf(text, "paused: %s\n", draw_quoted(quoted, status->paused_reason));
    append_stalled(text, status);
    append_stalled_looks(text, &status->looks);
    append_work(text, status);
    append_evicted(text, status->chunks_evicted);
    append_restarts(text, status);
    if (layout->rows == 0)
        append_settings(text, status);
}

static char *render(const struct unshard_status *status, const struct layout *layout)
{
    struct text text = {0};
    append_errors(&text, layout, status);
    append_header(&text, layout, status);
    draw_components(&text, layout, status);
    if (status->note_count > 0 && layout->detail == DETAIL_ALL) {
        text_append_string(&text, "\n");
        draw_notes(&text, "", status->notes, status->note_count);
    }
    return text_take(&text);
}

char *unshard_status_text(const struct unshard_status *status, unsigned width)
{
    struct layout layout = layout_for(status, width);
    return render(status, &layout);
}

/* ---- pictures ----------------------------------------------------------------------------------
 */

/* Rows that the line at `line` takes, which wraps; *next is set to the one after it. Escapes are
 * ours, and take no column. */
static unsigned rows_of_line(const char *line, unsigned columns, const char **next)
{
    size_t taken = 0;
    for (; *line != '\0' && *line != '\n'; line++) {
        if (*line == '\033')
            line += strcspn(line, "m");
        else
            taken += ((unsigned char)*line & 0xC0) != 0x80;
    }
    *next = line + (*line == '\n');
    return columns == 0 || taken == 0 ? 1 : (unsigned)((taken - 1) / columns + 1);
}

/* Where so many rows of the text end. */
static size_t length_of_rows(const char *text, unsigned columns, unsigned rows)
{
    const char *line = text, *next;
    while (*line != '\0') {
        unsigned taken = rows_of_line(line, columns, &next);
        if (taken > rows)
            break;
        rows -= taken;
        line = next;
    }
    return (size_t)(line - text);
}

static bool fits(const char *text, const struct unshard_screen *screen)
{
    return screen->rows == 0 || text[length_of_rows(text, screen->columns, screen->rows)] == '\0';
}

char *unshard_status_picture(const struct unshard_status *status,
                             const struct unshard_screen *screen)
{
    struct layout layout = layout_for(status, screen->columns);
    layout.colours = screen->colours;
    layout.rows = screen->rows;
    char *whole = render(status, &layout);
    while (whole != NULL && !fits(whole, screen) && ++layout.detail < DETAIL_COUNT) {
        free(whole);
        whole = render(status, &layout);
    }
    if (whole == NULL || fits(whole, screen))
        return whole;
    struct text cut = {0};
    text_append(&cut, whole, length_of_rows(whole, screen->columns, screen->rows - 1));
    text_append_string(&cut, "...\n");
    free(whole);
    return text_take(&cut);
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
        text_printf(text, "; %s %u %% %s", draw_quoted(quoted, draw_label(component)),
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
    text_printf(&text, "%s ", status->source != NULL ? draw_quoted(quoted, status->source) : "-");
    append_totals(&text, &(struct layout){0}, status);
    if (status->paused_reason != NULL)
        text_printf(&text, ", paused: %s", draw_quoted(quoted, status->paused_reason));
    append_unfinished(&text, status);
    return text_take(&text);
}
