/* SPDX-License-Identifier: MIT
 *
 * What is fetched ahead of readers. The scheduler's: the caller holds engine->lock, nothing blocks.
 */
#ifndef ENGINE_AHEAD_H
#define ENGINE_AHEAD_H

#include "engine/chunks.h"
#include "engine/streams.h"

#include <stdbool.h>
#include <stdint.h>

/* The next chunk ahead of a reader; NULL: none. */
struct fetch *ahead_next(struct unshard_engine *engine, unsigned self, bool staged_only);
/* A reader with O_DIRECT goes through the view: what the plan fetched besides would not be there
 * for it. */
bool ahead_is_direct(const struct unshard_engine *engine, uint32_t view);
/* All readers have O_DIRECT. What the plan published meanwhile would only cost them processor time
 * where the source is in memory: where it is slow, it is taken back for them (retrieve.c). */
bool ahead_is_all_direct(const struct unshard_engine *engine);
/* A stream has ended: what was fetched for it counts as passed. */
void ahead_give_credit_back(struct unshard_engine *engine, const struct stream *ended);

#endif
