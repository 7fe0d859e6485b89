/* SPDX-License-Identifier: MIT
 *
 * Passes over files of which only a digest of the whole is known: passes.c says which file is next,
 * pass.c how one runs, verdict.c what follows from its end.
 */
#ifndef ENGINE_PASSES_H
#define ENGINE_PASSES_H

#include "base/number_set.h"
#include "engine/chunks.h"
#include "engine/files.h"

#include <stdbool.h>
#include <stdint.h>

struct hasher;

struct passes {
    uint32_t *files;  /* with a digest of the whole, in the order in which they came; lazy, as the
                       * others */
    uint32_t *places; /* of each file: its place there and one, or 0 */
    uint64_t *due;    /* a bit for each place where a pass may have to be begun unasked */
    bool *planned;    /* of each place: the file is of the plan */
    size_t room;      /* of each of these */
    uint32_t count;   /* of places */
    struct number_set under_way; /* files with a pass */
    struct number_set demanded;  /* some of these with pass_demanded are all that have it */
    unsigned running, reading, most;
    unsigned in_memory; /* running ones that wait for nothing but a processor */
};

/* Before there are threads, and files. 0 or -ENOMEM. */
int passes_init(struct unshard_engine *engine);
void passes_free(struct unshard_engine *engine);

/* Everywhere but where it is said the caller holds engine->lock, and nothing blocks. */

/* The next read of a pass, started; NULL: none now. The caller holds engine->lock, and there is a
 * buffer to take. */
struct fetch *pass_next(struct unshard_engine *engine);
/* As pass_next, but only for files that readers wait for. */
struct fetch *pass_next_demanded(struct unshard_engine *engine);
/* A reader waits for the file: if a pass has to tell of it, it is not to wait for its turn. The
 * caller holds engine->lock. */
void pass_demand(struct unshard_engine *engine, uint32_t file);
/* A file is there now: if it has a digest of the whole, or is gathered from files that have, passes
 * are made over them. planned: it is of the plan, and comes before others that are not. */
void passes_add(struct unshard_engine *engine, uint32_t file, bool planned);
/* The same of all files that a view of the plan shows. */
void passes_plan_view(struct unshard_engine *engine, uint32_t view);
/* The file is about to go. It has no pass. */
void passes_remove(struct unshard_engine *engine, uint32_t file);
/* The file has begun anew. The caller holds engine->lock. */
void pass_may_be_due(struct unshard_engine *engine, uint32_t file);
/* The content that the pass is made over is not to be served any more: it comes to its end without
 * a verdict, and lets go of what it keeps. The caller holds engine->lock. */
void pass_void(struct unshard_engine *engine, uint32_t file);
/* A fetch of the pass has failed for good and is gone. The caller holds engine->lock. */
void pass_abandon(struct unshard_engine *engine, uint32_t file);
/* A detached fetch will not be read: lets it go. On no list; the caller holds engine->lock. */
void pass_cancel(struct unshard_engine *engine, struct fetch *fetch);
/* Gives back what is staged and nobody has come for: when neither readers nor storage have been
 * heard of for a while, or when memory has become short. Caller holds engine->lock. */
void pass_unstage(struct unshard_engine *engine, uint64_t now);

/* Reads for a pass; the fetch is gone afterwards. No lock held. May block as file_block does. */
void pass_read(struct unshard_engine *engine, struct fetch *fetch);
/* A chunk that is READY, or was read for the pass, is there to be hashed; takes over a reference to
 * it. No lock held; hashes, and what follows from the last one. */
void pass_arrived(struct unshard_engine *engine, struct fetch *fetch);
/* Reads the chunk of a detached fetch and feeds it to the hasher of its pass, whose
 * turn it must be. The buffer holds nothing of use afterwards. *cached: as source_read, of the last
 * piece. No lock held. 0 with fetch->digest set and *hasher another one; or as source_read and
 * check_header, then *hasher is what it was. */
int pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                bool *cached, struct unshard_error *error);
/* Frees a pass that did not come to an end. There are no other threads any more. */
void pass_discard(struct unshard_engine *engine, uint32_t file);

/* One is under way, or may have to be begun. The caller holds engine->lock. */
bool pass_remains(const struct unshard_engine *engine);

/* For passes.c: a pass over the file, which has none. demanded: a reader waits for it. False: there
 * is no room for it now, it has failed just now, or memory is short. */
bool pass_begin(struct unshard_engine *engine, uint32_t file, bool demanded);
/* The next chunk of the file's pass as a fetch that has been started; NULL: it is far enough ahead,
 * or memory is short. */
struct fetch *pass_read_next(struct unshard_engine *engine, uint32_t file);

/* verdict.c; the epoch is the one that was hashed, whether it is the file's still or not. No lock
 * held. The first as a log call does, the second as file_block does. */
void verdict_good(struct unshard_engine *engine, struct file_epoch *epoch);
void verdict_bad(struct unshard_engine *engine, struct file_epoch *epoch,
                 const struct digest *actual);

#endif
