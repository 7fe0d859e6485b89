/* SPDX-License-Identifier: MIT
 *
 * What is fetched unasked, and in which order: what lies ahead of readers (ahead.h), then what the
 * plan wants (plan.h), both found by a search (search.h). The caller of everything here holds
 * engine->lock. Nothing blocks.
 */
#ifndef ENGINE_SCHEDULE_H
#define ENGINE_SCHEDULE_H

#include "engine/chunks.h"

#include <stdbool.h>
#include <stdint.h>

/* The next chunk for reader `self` to fetch without being asked, as a fetch that is on no list;
 * NULL: nothing now. staged_only: storage must not be read for it. */
struct fetch *schedule_next(struct unshard_engine *engine, unsigned self, bool staged_only);
/* A reader asked for [offset, end) of a view; direct: one that sees nothing of the page cache. */
void schedule_note_read(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                        bool direct);
/* A reader took a sentinel page: everything since the sentinel before it has been passed. */
void schedule_note_sentinel(struct unshard_engine *engine, uint32_t view, uint64_t page);
/* Some of the file can be fetched that could not be: it is wanted, or served again. */
void schedule_offer(struct unshard_engine *engine, uint32_t file);
/* Some of the file is not there any more; the plan doesn't want it. */
void schedule_dropped(struct unshard_engine *engine, uint32_t file);
/* The same of all that a view shows. */
void schedule_offer_view(struct unshard_engine *engine, uint32_t view);
/* A READ of a reader that sees the page cache asks for whole pages at [offset, end) of the view,
 * of a chunk that was published, or is doubted: what was published ahead of it isn't believed any
 * more. */
void schedule_doubt(struct unshard_engine *engine, uint32_t view, uint64_t offset, uint64_t end,
                    struct chunk *chunk);
/* Nobody has the view open any more: readers' streams of it end. */
void schedule_closed(struct unshard_engine *engine, uint32_t view);
/* The housekeeper's share: what was put off and is due, streams that have been idle, buffers kept
 * for too long. engine->lock is released meanwhile. */
void schedule_tick(struct unshard_engine *engine, uint64_t now);
/* What was fetched for this stream is not waited for any more: it has ended. */
bool schedule_stream_ended(struct unshard_engine *engine, uint32_t number);
/* A store into the view has failed, or succeeded. */
void schedule_note_store(struct unshard_engine *engine, uint32_t view, bool failed);

/* A chunk is fetched for a view whose stores have failed: it tells whether they still do. */
void view_note_trial(struct unshard_engine *engine, uint32_t view);
/* Nothing is fetched unasked for its pages for now. */
bool view_rests(const struct unshard_engine *engine, uint32_t view);

#endif
