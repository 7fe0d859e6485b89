/* SPDX-License-Identifier: MIT
 *
 * Gathered files: tensors that are put together from the bytes of shards when they are read. They
 * have chunks and reads like other files. What they are believed by is what their shards are:
 * - while the pass over one of these has not succeeded, the gathered file is closed with it;
 * - bytes of a shard with chunk digests are taken from chunks that have matched, and no others;
 * - a shard that is blocked, or begins anew, takes the gathered files that depend on it along.
 */
#include "engine/engine_internal.h"

#include "base/error.h"
#include "formats/gather.h"
#include "store/gather_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what depends on what ----------------------------------------------------------------------
 */

bool file_view(struct unshard_engine *engine, uint32_t number, uint32_t place, uint32_t *view)
{
    pthread_mutex_lock(&engine->lock);
    const struct number_list *views = &engine->files[number].views;
    bool there = place < views->count;
    *view = there ? views->numbers[place] : UNSHARD_NO_VIEW;
    pthread_mutex_unlock(&engine->lock);
    return there;
}

void gathered_block_at_start(struct unshard_engine *engine, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    const struct unshard_error *error = gathered != NULL ? gathered_error(engine, gathered) : NULL;
    if (error != NULL)
        file_block_dependent_at_start(engine, number, error);
}

static bool is_closed(const struct unshard_engine *engine, const struct gathered *gathered)
{
    for (uint32_t i = 0; i < gathered->source_count; i++)
        if (gate_is_closed(&engine->files[gathered->sources[i].file].gate))
            return true;
    return false;
}

void gathered_demand(struct unshard_engine *engine, const struct gathered *gathered)
{
    for (uint32_t i = 0; i < gathered->source_count; i++)
        pass_demand(engine, gathered->sources[i].file);
}

void gathered_source_opened(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *source = &engine->files[number];
    for (size_t i = 0; i < source->dependents.count; i++) {
        uint32_t dependent = source->dependents.numbers[i];
        struct file_state *file = &engine->files[dependent];
        if (gate_is_closed(&file->gate) &&
            !is_closed(engine, engine->checkpoint->files[dependent].gathered))
            file_open(engine, dependent);
    }
}

const struct unshard_error *gathered_error(const struct unshard_engine *engine,
                                           const struct gathered *gathered)
{
    const struct unshard_error *error = NULL;
    for (uint32_t i = 0; i < gathered->source_count && error == NULL; i++)
        error = gate_error(&engine->files[gathered->sources[i].file].gate);
    return error;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* One read of a gathered chunk. `chunk` holds the last chunk of a shard that has matched. */
struct verified_reader {
    struct unshard_engine *engine;
    char *chunk;
    struct file_epoch *epoch;       /* of the shard at hand; referenced */
    const struct file_check *check; /* ... by which it is checked now */
    uint64_t index, length;         /* of `chunk`, which is of that epoch; length 0: none */
};

static void look_at_epoch(struct verified_reader *reader, struct file_epoch *epoch)
{
    if (reader->epoch != epoch) {
        epoch_release(reader->epoch);
        reader->epoch = epoch_hold(epoch);
        reader->length = 0;
    }
    reader->check = epoch->check;
}

/* Has the shard as it is now in reader->epoch and reader->check, unless nothing of it may be
 * served. */
static int look_at_shard(struct verified_reader *reader, uint32_t number,
                         struct unshard_error *error)
{
    struct unshard_engine *engine = reader->engine;
    const struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    bool open = gate_is_open(&file->gate);
    const struct unshard_error *known = open ? NULL : file_error(engine, number);
    look_at_epoch(reader, file->epoch);
    if (known != NULL)
        *error = *known;
    pthread_mutex_unlock(&engine->lock);
    if (!open && known == NULL)
        error_set(error, "changed", ESTALE, "%s: changed while it was read",
                  engine->checkpoint->files[number].path);
    return open ? 0 : -EIO;
}

static int read_plain(struct unshard_engine *engine, uint32_t file, uint64_t offset, void *buffer,
                      size_t length, bool sparse, struct unshard_error *error)
{
    bool cached;
    return sparse ? source_read_cached(engine->source, file, offset, buffer, length, error)
                  : source_read(engine->source, file, offset, buffer, length, &cached, error);
}

/* Has the chunk `index` of the shard in reader->chunk, checked. */
static int load_chunk(struct verified_reader *reader, uint64_t index, bool sparse,
                      struct unshard_error *error)
{
    struct unshard_engine *engine = reader->engine;
    const struct file_epoch *epoch = reader->epoch;
    const struct file_check *check = reader->check;
    uint64_t most = check->chunks.chunk_bytes, offset = index * most, size = epoch->identity.size;
    if (reader->length > 0 && reader->index == index)
        return 0;
    if (reader->chunk == NULL)
        reader->chunk = aligned_alloc(DIRECT_ALIGNMENT, engine->chunk_bytes);
    if (reader->chunk == NULL) {
        error_no_memory(error);
        return -ENOMEM;
    }
    reader->length = 0;
    /* Beyond the end of a truncated file the read itself tells what is the matter. */
    uint64_t length = offset < size && size - offset < most ? size - offset : most;
    int result = read_plain(engine, epoch->file, offset, reader->chunk, length, sparse, error);
    if (result == 0)
        result = check_bytes(engine, epoch->file, check, offset, reader->chunk, length, error);
    if (result == 0 && epoch_is_first(epoch))
        result = check_header(engine, epoch->file, offset, reader->chunk, length, error);
    if (result == 0 && epoch_is_first(epoch))
        result = unread_check(engine, epoch->file, check, error);
    if (result != 0 && strcmp(error->code, HEADER_MISMATCH) == 0)
        file_block(engine, epoch, GATE_HEADER, error, NULL);
    if (result != 0)
        return result;
    reader->index = index;
    reader->length = length;
    return 0;
}

static int read_verified(void *context, uint32_t file, uint64_t offset, void *buffer, size_t length,
                         bool sparse, struct unshard_error *error)
{
    struct verified_reader *reader = context;
    int result = look_at_shard(reader, file, error);
    if (result != 0)
        return result;
    if (reader->check->kind != CHECK_CHUNKS)
        return read_plain(reader->engine, file, offset, buffer, length, sparse, error);
    uint64_t chunk_bytes = reader->check->chunks.chunk_bytes;
    for (size_t done = 0; done < length;) {
        uint64_t at = offset + done, skip = at % chunk_bytes;
        result = load_chunk(reader, at / chunk_bytes, sparse, error);
        if (result != 0)
            return result;
        if (skip >= reader->length)
            return -EIO; /* cannot be: the read would have failed */
        uint64_t piece = reader->length - skip;
        if (piece > length - done)
            piece = length - done;
        memcpy((char *)buffer + done, reader->chunk + skip, piece);
        done += piece;
    }
    return 0;
}

static void advise(void *context, uint32_t file, uint64_t offset, uint64_t length)
{
    const struct verified_reader *reader = context;
    source_advise(reader->engine->source, file, offset, length);
}

static uint64_t size_of(void *context, uint32_t file)
{
    const struct verified_reader *reader = context;
    return source_identity(reader->engine->source, file).size;
}

int gathered_read(struct unshard_engine *engine, struct fetch *fetch, struct unshard_error *error)
{
    struct verified_reader reader = {.engine = engine};
    struct gather_source source = {&reader, read_verified, advise, size_of};
    int result = gather_read(engine->checkpoint->files[fetch->file].gathered,
                             (uint64_t)fetch->index * engine->chunk_bytes, fetch->buffer,
                             fetch->length, &source, error);
    free(reader.chunk);
    epoch_release(reader.epoch);
    return result;
}
