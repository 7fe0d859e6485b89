/* SPDX-License-Identifier: MIT
 *
 * Components and their shards, a line each. */
#include "status/drawing.h"
#include "status/words.h"

#include <stdio.h>
#include <string.h>

/* Above this many shards only those that say something are listed. */
#define SHARDS_LISTED 20
/* Columns below which a line leaves something out. */
#define NARROW 110
#define NAME_CAPACITY 256

/* One line: name, bar, percentage, bytes, state and what there is to say of it. indent is part of
 * the name's column. */
static void append_line(struct text *text, const struct layout *layout, unsigned indent,
                        const char *name, struct progress progress, enum unshard_state state,
                        const char *remark)
{
    char quoted[QUOTED_CAPACITY], done[UNSHARD_HUMAN_CAPACITY], total[UNSHARD_HUMAN_CAPACITY];
    draw_quoted(quoted, name);
    unsigned column = layout->name > indent ? layout->name - indent : 1;
    const char *shown = unshard_human_tail(quoted, column);
    size_t columns = unshard_human_columns(shown);
    unsigned pad = columns < column ? (unsigned)(column - columns) : 0;
    text_printf(text, "%*s%s%*s ", (int)indent, "", shown, (int)pad, "");
    if (layout->width)
        draw_bar(text, layout, layout->bar, progress, colour_of(state));
    text_printf(text, "%3u %% ", unshard_human_percent(progress.done, progress.total));
    if (!layout->narrow)
        text_printf(text, "%10s ", unshard_human_bytes(done, progress.done));
    text_printf(text, "of %10s  ", unshard_human_bytes(total, progress.total));
    draw_coloured(text, layout, colour_of(state), unshard_state_name(state));
    text_printf(text, "%s\n", remark);
}

/* Whether there is nothing more to be seen of it. */
static bool is_done(const struct unshard_component_status *component)
{
    return component->error == NULL && component->state != UNSHARD_STATE_FAILED &&
           component->bytes_published >= component->bytes_total;
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
                (struct progress){shard->bytes_read, shard->bytes_total}, shard->state, "");
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
    unsigned counts[UNSHARD_STATE_COUNT] = {0};
    bool undone_only = layout->detail != DETAIL_ALL;
    if (undone_only && (is_done(component) || component->shard_count == 1))
        return;
    if (!undone_only && component->shard_count <= SHARDS_LISTED) {
        for (uint32_t i = 0; i < component->shard_count; i++)
            append_shard(text, layout, component->shards[i]);
        return;
    }
    count_shards(component, counts);
    text_append_string(text, "  ");
    draw_shard_counts(text, layout, counts);
    append_shards_in_state(text, layout, component, UNSHARD_STATE_FAILED, SHARDS_LISTED);
    append_shards_in_state(text, layout, component, UNSHARD_STATE_READING, SHARDS_LISTED / 2);
}

static void append_component(struct text *text, const struct layout *layout,
                             const struct unshard_component_status *component)
{
    if (layout->detail == DETAIL_ALL)
        text_append_string(text, "\n");
    append_line(text, layout, 0, draw_label(component),
                (struct progress){component->bytes_published, component->bytes_total},
                component->state, component->evicted ? ", evicted" : "");
    append_shards(text, layout, component);
    draw_notes(text, "  ", component->notes, component->note_count);
}

void draw_components(struct text *text, const struct layout *layout,
                     const struct unshard_status *status)
{
    unsigned done = 0;
    if (layout->detail != DETAIL_ALL)
        text_append_string(text, "\n");
    for (uint32_t i = 0; i < status->component_count; i++) {
        bool counted = layout->detail == DETAIL_UNDONE && is_done(&status->components[i]);
        if (counted)
            done++;
        else
            append_component(text, layout, &status->components[i]);
    }
    if (done > 0)
        text_printf(text, "and %u component%s done\n", done, done == 1 ? " that is" : "s that are");
}

static size_t longest_name(const struct unshard_status *status)
{
    char name[NAME_CAPACITY], quoted[STATUS_NAME_CAPACITY];
    size_t longest = 8;
    for (uint32_t i = 0; i < status->component_count; i++) {
        const struct unshard_component_status *component = &status->components[i];
        size_t columns = unshard_human_columns(status_name(quoted, draw_label(component)));
        longest = columns > longest ? columns : longest;
        for (uint32_t k = 0; k < component->shard_count; k++) {
            columns = 2 + unshard_human_columns(shard_name(component->shards[k], name));
            longest = columns > longest ? columns : longest;
        }
    }
    return longest;
}

/* The name column takes what the longest name needs; on a terminal at most half of the width. */
struct layout layout_for(const struct unshard_status *status, unsigned width)
{
    struct layout layout = {.width = width, .narrow = width > 0 && width < NARROW};
    size_t longest = longest_name(status);
    /* Percentage, bytes, state, spaces and brackets. */
    unsigned figures = layout.narrow ? 36 : 47;
    unsigned room = width > figures + LEAST_BAR ? width - figures - LEAST_BAR : 0;
    unsigned most = room < width / 2 ? room : width / 2;
    most = most > 12 ? most : 12;
    layout.name = longest < most || width == 0 ? (unsigned)longest : most;
    unsigned taken = layout.name + figures;
    layout.bar = width > taken + LEAST_BAR ? width - taken : LEAST_BAR;
    layout.bar = layout.bar < 40 ? layout.bar : 40;
    return layout;
}
