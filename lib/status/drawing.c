/* SPDX-License-Identifier: MIT */
#include "status/drawing.h"
#include "base/error.h"
#include "status/words.h"

#include <stdio.h>
#include <string.h>

#define BAR_CAPACITY 128

const char *draw_quoted(char out[QUOTED_CAPACITY], const char *string)
{
    char name[STATUS_NAME_CAPACITY];
    string = status_name(name, string);
    return error_printable(out, QUOTED_CAPACITY, string, strlen(string));
}

const char *draw_label(const struct unshard_component_status *component)
{
    bool root = strcmp(component->name, ".") == 0 && component->view != NULL;
    return root ? component->view : component->name;
}

const char *colour_of(enum unshard_state state)
{
    static const char *const colours[UNSHARD_STATE_COUNT] = {
        [UNSHARD_STATE_PENDING] = FAINT,
        [UNSHARD_STATE_READING] = CYAN,
        [UNSHARD_STATE_VERIFIED] = GREEN,
        [UNSHARD_STATE_FAILED] = RED,
    };
    return colours[state];
}

const char *colour_of_mount(enum unshard_mount_state state)
{
    static const char *const colours[UNSHARD_MOUNT_STATE_COUNT] = {
        [UNSHARD_MOUNT_PREFETCHING] = CYAN, [UNSHARD_MOUNT_READY] = GREEN,
        [UNSHARD_MOUNT_PAUSED] = YELLOW,    [UNSHARD_MOUNT_DEGRADED] = YELLOW,
        [UNSHARD_MOUNT_FAILED] = RED,
    };
    return colours[state];
}

void draw_coloured(struct text *text, const struct layout *layout, const char *colour,
                   const char *string)
{
    if (layout->colours && colour != NULL && *string != '\0')
        text_printf(text, "\033[%sm%s\033[0m", colour, string);
    else
        text_append_string(text, string);
}

void draw_bar(struct text *text, const struct layout *layout, unsigned width,
              struct progress progress, const char *colour)
{
    char bar[BAR_CAPACITY], filled[BAR_CAPACITY];
    unshard_human_bar(bar, sizeof bar, width, progress.done, progress.total);
    size_t length = strspn(bar + 1, "#");
    snprintf(filled, sizeof filled, "%.*s", (int)length, bar + 1);
    text_append_string(text, "[");
    draw_coloured(text, layout, colour, filled);
    char *rest = bar + 1 + length;
    rest[strcspn(rest, "]")] = '\0';
    draw_coloured(text, layout, FAINT, rest);
    text_append_string(text, "] ");
}

void draw_wrapped(struct text *text, unsigned width, const char *lines)
{
    size_t column = 0;
    while (*lines != '\0') {
        size_t blanks = strspn(lines, " "), length = strcspn(lines + blanks, " \n");
        if (width > 0 && column > 0 && column + blanks + length > width) {
            text_append_string(text, "\n    ");
            column = 4;
            lines += blanks;
            blanks = 0;
        }
        text_append(text, lines, blanks + length);
        column += blanks + length;
        lines += blanks + length;
        if (*lines == '\n') {
            text_append_string(text, "\n");
            column = 0;
            lines++;
        }
    }
}

void draw_notes(struct text *text, const char *indent, const char *const *notes, uint32_t count)
{
    char quoted[QUOTED_CAPACITY];
    for (uint32_t i = 0; i < count; i++)
        text_printf(text, "%snote: %s\n", indent, draw_quoted(quoted, notes[i]));
}

void count_shards(const struct unshard_component_status *component,
                  unsigned counts[UNSHARD_STATE_COUNT])
{
    for (uint32_t i = 0; i < component->shard_count; i++)
        counts[component->shards[i]->state]++;
}

void draw_shard_counts(struct text *text, const struct layout *layout,
                       const unsigned counts[UNSHARD_STATE_COUNT])
{
    static const enum unshard_state order[] = {UNSHARD_STATE_FAILED,   UNSHARD_STATE_PENDING,
                                               UNSHARD_STATE_READING,  UNSHARD_STATE_UNVERIFIED,
                                               UNSHARD_STATE_VERIFIED, UNSHARD_STATE_UNKNOWN};
    unsigned total = 0;
    for (size_t i = 0; i < UNSHARD_STATE_COUNT; i++)
        total += counts[i];
    text_printf(text, "%u shard%s:", total, total == 1 ? "" : "s");
    const char *separator = " ";
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (counts[order[i]] == 0)
            continue;
        text_printf(text, "%s%u ", separator, counts[order[i]]);
        draw_coloured(text, layout, colour_of(order[i]), unshard_state_name(order[i]));
        separator = ", ";
    }
    text_append_string(text, "\n");
}
