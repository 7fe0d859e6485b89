/* SPDX-License-Identifier: MIT
 *
 * Parts of a status as text: lines that fit a width, bars, colours. Pure functions; what they
 * append to remembers that memory was short. */
#ifndef STATUS_DRAWING_H
#define STATUS_DRAWING_H

#include "base/text.h"
#include "unshard.h"

#include <stdbool.h>
#include <stdint.h>

/* A shard name has at most 255 bytes, each of which may be quoted as \xNN; a path is cut. */
#define QUOTED_CAPACITY 1100
#define LEAST_BAR 4U

/* Colours, as SGR has them. */
#define RED "31"
#define GREEN "32"
#define YELLOW "33"
#define CYAN "36"
#define BOLD "1"
#define FAINT "2"

/* How much is told of each component. */
enum detail {
    DETAIL_ALL,
    DETAIL_UNDONE_SHARDS, /* of those that are not done: their shards that fail or are being read */
    DETAIL_UNDONE,        /* those that are not done; the others are counted */
    DETAIL_COUNT
};

struct layout {
    unsigned width; /* 0: plain lines, no bars */
    unsigned name, bar;
    bool narrow; /* no room for the bytes done */
    bool colours;
    enum detail detail;
    unsigned rows; /* that there are; 0: any number */
};

struct progress {
    uint64_t done, total;
};

/* A name or message as it may be shown. Returns out. */
const char *draw_quoted(char out[QUOTED_CAPACITY], const char *string);
/* What to call a component: its name, but for the root's (".") that of its view. */
const char *draw_label(const struct unshard_component_status *component);

/* NULL: that of the terminal. */
const char *colour_of(enum unshard_state state);
const char *colour_of_mount(enum unshard_mount_state state);
/* The string in that colour, where there are colours. */
void draw_coloured(struct text *text, const struct layout *layout, const char *colour,
                   const char *string);
/* A bar of so many cells in brackets, with a space after it; in the colour what is filled of it. */
void draw_bar(struct text *text, const struct layout *layout, unsigned width,
              struct progress progress, const char *colour);
/* Lines, of which those that are longer than width (0: any) go on in the next row, indented. */
void draw_wrapped(struct text *text, unsigned width, const char *lines);
/* "note: " and the text of each, a line for each. */
void draw_notes(struct text *text, const char *indent, const char *const *notes, uint32_t count);

/* Adds how many shards of the component are in which state. */
void count_shards(const struct unshard_component_status *component,
                  unsigned counts[UNSHARD_STATE_COUNT]);
/* "163 shards: 12 pending, 8 reading, 143 verified" */
void draw_shard_counts(struct text *text, const struct layout *layout,
                       const unsigned counts[UNSHARD_STATE_COUNT]);

/* The layout that fits the width best; detail is ALL, in no colours. */
struct layout layout_for(const struct unshard_status *status, unsigned width);
/* A line for each component and its shards, as far as layout.detail goes. In component_rows.c. */
void draw_components(struct text *text, const struct layout *layout,
                     const struct unshard_status *status);

#endif
