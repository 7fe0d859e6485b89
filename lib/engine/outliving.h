/* SPDX-License-Identifier: MIT
 *
 * What the engine of the next process needs to know of each content of a file (keep.h), because it
 * could not be found out again without reading it, or not at all: what its chunks were when they
 * were read, so that one that changes is noticed also when the process was another one meanwhile;
 * what has been verified; what is in the page cache; what must not be served.
 *
 * One record for each file, with the identity of the content that it is about. The tags of chunks
 * are not copied there but kept there: `digests` of the file is in the record. A mark for each
 * chunk is made of its state whenever that changes (outliving_mark). The tag is written before the
 * mark that it counts; a mark is one byte.
 *
 * The next engine takes a record over when it is given a file of that identity, and begins with it;
 * what is not asked for stays until it is. A file that begins anew (another epoch) has a new
 * record.
 *
 * Under engine->lock, but for what is made before anybody knows of a file. */
#ifndef ENGINE_OUTLIVING_H
#define ENGINE_OUTLIVING_H

#include "unshard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_state;
struct outliving_file;

struct outliving {
    struct unshard_keep *keep; /* NULL: nothing is kept */
    /* Records of an earlier process that no file has taken over, by a hash of their identity. */
    struct outliving_file **found;
    size_t room; /* a power of two, or 0 */
};

/* Finds what an earlier process has left, and the secret of its tags, which is trust.secret from
 * then on. 0, -ENOMEM, or -EPROTO: it makes no sense. */
int outliving_init(struct unshard_engine *engine);
void outliving_free(struct unshard_engine *engine);

/* A file of which nobody knows yet, with its first epoch: finds its record or makes one. */
void outliving_adopt(struct unshard_engine *engine, uint32_t file);
/* It is there now: its chunks are what they were. Caller holds engine->lock. */
void outliving_restore(struct unshard_engine *engine, uint32_t file);
/* Why it must not be served, as an earlier process has found; false: nothing is known against it.
 */
bool outliving_is_bad(const struct unshard_engine *engine, uint32_t file,
                      struct unshard_error *error);
/* Whether the whole of it has matched its digest, so that its tags are those of verified chunks. */
bool outliving_is_good(const struct unshard_engine *engine, uint32_t file);

/* A chunk is not what it was. Caller holds engine->lock. */
void outliving_mark(struct file_state *file, uint32_t index);
/* The verdict about its content. Caller holds engine->lock. */
void outliving_good(struct file_state *file);
void outliving_bad(struct file_state *file, const struct unshard_error *error);
/* It is another content from now on. Caller holds engine->lock. */
void outliving_renew(struct unshard_engine *engine, uint32_t file);
/* The record goes, and the file's digests with it. */
void outliving_remove(struct file_state *file);

#endif
