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

int gathered_init(struct unshard_engine *engine)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    size_t total = 0;
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct gathered *gathered = checkpoint->files[i].gathered;
        for (uint32_t k = 0; gathered != NULL && k < gathered->source_count; k++)
            engine->files[gathered->sources[k].file].dependent_count++;
    }
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        engine->files[i].first_dependent = total;
        total += engine->files[i].dependent_count;
        engine->files[i].dependent_count = 0;
    }
    engine->dependents = calloc(total + 1, sizeof *engine->dependents);
    if (engine->dependents == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct gathered *gathered = checkpoint->files[i].gathered;
        for (uint32_t k = 0; gathered != NULL && k < gathered->source_count; k++) {
            struct file_state *source = &engine->files[gathered->sources[k].file];
            engine->dependents[source->first_dependent + source->dependent_count++] = i;
        }
    }
    return 0;
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
    for (uint32_t i = 0; i < gathered->source_count; i++) {
        struct file_state *source = &engine->files[gathered->sources[i].file];
        source->pass_demanded = source->pass_demanded || source->check == CHECK_WHOLE;
    }
}

void gathered_source_opened(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *source = &engine->files[number];
    for (size_t i = 0; i < source->dependent_count; i++) {
        uint32_t dependent = engine->dependents[source->first_dependent + i];
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
    uint32_t file;
    uint64_t index, length; /* of that chunk; length 0: none */
    uint32_t generation;    /* of the shard at hand */
};

/* What a shard is to be checked by now, or why nothing of it may be served. */
static int current_check(struct verified_reader *reader, uint32_t number, enum check_kind *check,
                         struct expected_chunks *trusted, struct unshard_error *error)
{
    struct unshard_engine *engine = reader->engine;
    const struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    bool open = gate_is_open(&file->gate);
    const struct unshard_error *known = open ? NULL : file_error(engine, number);
    *check = file->check;
    *trusted = file->trusted;
    reader->generation = file->generation;
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
static int load_chunk(struct verified_reader *reader, uint32_t file,
                      const struct expected_chunks *trusted, uint64_t index, bool sparse,
                      struct unshard_error *error)
{
    struct unshard_engine *engine = reader->engine;
    uint64_t offset = index * trusted->chunk_bytes;
    uint64_t size = source_identity(engine->source, file).size;
    if (reader->length > 0 && reader->file == file && reader->index == index)
        return 0;
    if (reader->chunk == NULL)
        reader->chunk = aligned_alloc(DIRECT_ALIGNMENT, engine->chunk_bytes);
    if (reader->chunk == NULL) {
        error_no_memory(error);
        return -ENOMEM;
    }
    reader->length = 0;
    /* Beyond the end of a truncated file the read itself tells what is the matter. */
    uint64_t length = offset < size && size - offset < trusted->chunk_bytes ? size - offset
                                                                            : trusted->chunk_bytes;
    int result = read_plain(engine, file, offset, reader->chunk, length, sparse, error);
    if (result == 0)
        result = check_bytes(engine, file, trusted, offset, reader->chunk, length, error);
    if (result == 0 && reader->generation == 0)
        result = check_header(engine, file, offset, reader->chunk, length, error);
    if (result == 0 && reader->generation == 0)
        result = unread_check(engine, file, trusted, error);
    if (result != 0 && strcmp(error->code, HEADER_MISMATCH) == 0)
        file_block(engine, file, reader->generation, GATE_HEADER, error, NULL);
    if (result != 0)
        return result;
    reader->file = file;
    reader->index = index;
    reader->length = length;
    return 0;
}

static int read_verified(void *context, uint32_t file, uint64_t offset, void *buffer, size_t length,
                         bool sparse, struct unshard_error *error)
{
    struct verified_reader *reader = context;
    struct expected_chunks trusted;
    enum check_kind check;
    int result = current_check(reader, file, &check, &trusted, error);
    if (result != 0)
        return result;
    if (check != CHECK_CHUNKS)
        return read_plain(reader->engine, file, offset, buffer, length, sparse, error);
    for (size_t done = 0; done < length;) {
        uint64_t at = offset + done, skip = at % trusted.chunk_bytes;
        result = load_chunk(reader, file, &trusted, at / trusted.chunk_bytes, sparse, error);
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
    return result;
}
