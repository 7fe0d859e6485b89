/* SPDX-License-Identifier: MIT
 *
 * The plan: views in the order in which they are fetched when nobody asks. The scheduler's: the
 * caller holds engine->lock, nothing blocks.
 */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include "engine/chunks.h"

#include <stdbool.h>
#include <stdint.h>

struct plan {
    uint32_t *views; /* their numbers, in order; lazy */
    size_t room;     /* of it */
    uint32_t count;
    uint32_t first;            /* before here there is nothing to fetch now */
    bool done;                 /* nor will there be by itself */
    bool search_on;            /* a search was interrupted: there may be work all the same */
    uint64_t total_bytes;      /* of all of it */
    const char *paused_reason; /* why there is nothing to prefetch though not all is; or NULL */
};

/* There is one. */
bool plan_is_followed(const struct unshard_engine *engine);
/* Whether a view may be in the plan: it is of weights. */
bool plan_takes(const struct unshard_engine *engine, uint32_t view);
/* At its end; what is in there already is not taken again. */
void plan_add(struct unshard_engine *engine, uint32_t view);
void plan_remove(struct unshard_engine *engine, uint32_t view);
/* The plan may go on; if not, engine->plan.paused_reason may say why. */
bool plan_may(struct unshard_engine *engine);
/* The next chunk of the plan; NULL: none. */
struct fetch *plan_next(struct unshard_engine *engine, unsigned self, bool staged_only);

#endif
