/* SPDX-License-Identifier: MIT
 *
 * A status that is being made: what snapshot.c takes under the engine's lock, and what it and
 * narrow.c work out of that afterwards. */
#ifndef ENGINE_TAKING_H
#define ENGINE_TAKING_H

#include "base/arena.h"
#include "base/number_list.h"
#include "unshard.h"

#include <limits.h>

/* Reads that hang, of which the status tells. */
#define MOST_STUCK 16U

struct taken_file {
    struct unshard_file_status status;
    bool taken, shown; /* shown: a view shows some of it as it lies there */
    bool counted;      /* in the sums of all */
    bool busy;         /* something of it is read or stored */
};

/* What the status says by itself of layouts, of each kind in their order. */
enum told_kind { TOLD_PROBLEMS, TOLD_NOTES, TOLD_COMPONENTS, TOLD_FILES, TOLD_KINDS };

/* ---- only what narrow.c needs ---- */

struct taken_view {
    uint32_t number;
    unsigned opened;
    bool planned; /* the plan has not come to its end */
};

/* How much of what is told is of one directory. */
struct told_share {
    const char *directory; /* a copy; NULL: that is not known */
    uint32_t counts[TOLD_KINDS];
    bool seen;
};

struct narrowing {
    const struct unshard_audience *audience; /* NULL: the status is of all */
    struct told_share *shares;               /* the first is of the source itself */
    struct taken_view *views;                /* that are open, or that the plan is not done with */
    bool *hidden; /* components, by their numbers, that are not for the audience */
    uint32_t share_count, view_count;
    char asked[PATH_MAX]; /* the directory that was asked about last */
    bool asked_any, answer;
};

/* ---- */

struct taking {
    struct unshard_engine *engine;
    const struct unshard_checkpoint *checkpoint;
    struct unshard_status *status;
    struct arena *arena;
    struct taken_file *files; /* by the numbers of the source files, gathered ones too */
    uint32_t *numbers;        /* of those that are taken */
    uint32_t file_room;       /* of both */
    uint32_t count;
    /* What the status points to, as long as it can be changed. */
    struct unshard_component_status *components; /* those that were taken, then those told of */
    struct unshard_error *problems;              /* the source's, then those told of */
    const char **notes;
    struct unshard_stuck_read *stuck;
    uint32_t *stuck_files;                  /* the numbers of their files */
    struct unshard_file_status *told_files; /* that the engine does not have */
    uint32_t told_component_count, told_file_count;
    uint32_t old_problems; /* that are not of the source, but of what is in it */
    bool planned, busy;    /* there is more to prefetch; something is under way */
    bool no_stores;
    bool failed; /* memory is short */
    struct narrowing narrowing;
};

/* Takes what is needed to narrow the status, when it has an audience, and all else was taken. The
 * caller holds engine->lock. */
void narrow_take(struct taking *taking);
/* Leaves out what is not for the audience. components: the numbers of those that were taken, which
 * are filled in, as are the files. No lock held. */
void narrow_components(struct taking *taking, struct number_list *components);
void narrow_rest(struct taking *taking);
/* Whether the status tells of a file that was taken: all there are when it has no audience. After
 * narrow_components. */
bool narrow_sees_file(struct taking *taking, uint32_t number);

#endif
