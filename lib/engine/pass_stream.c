/* SPDX-License-Identifier: MIT
 *
 * A chunk of a pass that comes out of memory: copied, and hashed twice, in pieces that stay in the
 * processor's own cache. With whole chunks the copy goes to memory and comes back for each hash,
 * which takes a quarter of the speed. When the read fails half way, the pass is where it was before
 * the chunk: it is fed to a copy of the hasher.
 */
#include "engine/engine_internal.h"

#include "base/error.h"

/* With what it is copied from well within a second-level cache; header pieces lie within one. */
#define PIECE_BYTES 262144U
_Static_assert(PIECE_BYTES % HEADER_PIECE_BYTES == 0, "a header piece lies in one piece");

static int stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher *hasher,
                  struct hasher *tag, bool *cached, struct unshard_error *error)
{
    uint64_t offset = (uint64_t)fetch->index * engine->chunk_bytes;
    int result = 0;
    for (uint32_t done = 0, length; done < fetch->length && result == 0; done += length) {
        length = fetch->length - done < PIECE_BYTES ? fetch->length - done : PIECE_BYTES;
        result = source_read(engine->source, fetch->file, offset + done, fetch->buffer, length,
                             cached, error);
        if (result == 0 && epoch_is_first(fetch->epoch))
            result = check_header(engine, fetch->file, offset + done, fetch->buffer, length, error);
        if (result != 0)
            break;
        hasher_update(tag, fetch->buffer, length);
        hasher_update(hasher, fetch->buffer, length);
    }
    hasher_finish(tag, &fetch->digest);
    if (result == 0 && fetch->digest.algorithm == DIGEST_NONE)
        result = error_no_memory(error);
    return result;
}

int pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                bool *cached, struct unshard_error *error)
{
    struct hasher *tag = hasher_new_keyed(&engine->trust.secret), *next = hasher_copy(*hasher);
    int result = tag != NULL && next != NULL ? stream(engine, fetch, next, tag, cached, error)
                                             : error_no_memory(error);
    if (result == 0) {
        struct hasher *before = *hasher;
        *hasher = next;
        next = before;
    }
    hasher_free(next);
    hasher_free(tag);
    fetch->hashed = result == 0;
    return result;
}
