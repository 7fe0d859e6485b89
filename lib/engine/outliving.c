/* SPDX-License-Identifier: MIT */
#include "engine/outliving.h"

#include "base/error.h"
#include "base/lazy_array.h"
#include "engine/engine_internal.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SEED 0x756e7368
#define GATHERED UINT64_MAX /* for a device: it is no file on disk */

enum { SEEN = 1, CHECKED = 2, PUBLISHED = 4, CONSUMED = 8 };

enum verdict { UNKNOWN, GOOD, BAD };

struct outliving_file {
    struct source_identity identity;
    uint64_t chunk_bytes;
    uint32_t chunk_count;
    _Atomic uint32_t verdict;
    uint64_t bad_offset;
    char bad_code[32], bad_message[512];
    /* Then the tags, and behind them the marks. */
    struct chunk_tag tags[];
};

struct outliving_engine {
    struct secret secret;
};

static uint8_t *marks_of(struct outliving_file *record)
{
    return (uint8_t *)(record->tags + record->chunk_count);
}

static size_t bytes_for(uint32_t chunk_count)
{
    return sizeof(struct outliving_file) + (size_t)chunk_count * (sizeof(struct chunk_tag) + 1);
}

/* ---- finding -----------------------------------------------------------------------------------
 */

/* Of what two identities of one content have in common. */
static size_t place_of(const struct outliving *outliving, const struct source_identity *identity)
{
    uint64_t words[] = {identity->size, (uint64_t)identity->mtime_ns};
    return XXH3_64bits_withSeed(words, sizeof words, SEED) & (outliving->room - 1);
}

static int count_one(void *context, void *record, size_t bytes)
{
    (void)record, (void)bytes;
    ++*(size_t *)context;
    return 0;
}

static int note_one(void *context, void *found, size_t bytes)
{
    struct outliving *outliving = context;
    struct outliving_file *record = found;
    if (bytes < sizeof *record || bytes < bytes_for(record->chunk_count))
        return 0;
    size_t at = place_of(outliving, &record->identity);
    while (outliving->found[at] != NULL)
        at = (at + 1) & (outliving->room - 1);
    outliving->found[at] = record;
    return 0;
}

static int find_records(struct outliving *outliving)
{
    size_t count = 0;
    unshard_keep_each(outliving->keep, UNSHARD_KEEP_FILE, count_one, &count);
    if (count == 0)
        return 0;
    outliving->room = 16;
    while (outliving->room < 2 * count)
        outliving->room *= 2;
    outliving->found = calloc(outliving->room, sizeof *outliving->found);
    if (outliving->found == NULL)
        return -ENOMEM;
    return unshard_keep_each(outliving->keep, UNSHARD_KEEP_FILE, note_one, outliving);
}

static int take_secret(void *context, void *record, size_t bytes)
{
    if (bytes < sizeof(struct outliving_engine))
        return -EPROTO;
    *(struct secret *)context = ((const struct outliving_engine *)record)->secret;
    return 1;
}

/* Tags of another secret would tell of a change where there is none. */
static int agree_on_secret(struct unshard_engine *engine)
{
    struct outliving *outliving = &engine->outliving;
    struct secret secret;
    int result = unshard_keep_each(outliving->keep, UNSHARD_KEEP_ENGINE, take_secret, &secret);
    if (result < 0)
        return result;
    if (result > 0) {
        if (engine->trust.cache != NULL &&
            memcmp(&secret, &engine->trust.secret, sizeof secret) != 0) {
            digest_cache_close(engine->trust.cache);
            engine->trust.cache = NULL;
        }
        engine->trust.secret = secret;
        return 0;
    }
    struct outliving_engine *record =
        unshard_keep_add(outliving->keep, UNSHARD_KEEP_ENGINE, sizeof *record);
    if (record == NULL)
        return -ENOMEM;
    record->secret = engine->trust.secret;
    unshard_keep_commit(record);
    return 0;
}

int outliving_init(struct unshard_engine *engine)
{
    engine->outliving.keep = engine->options.keep;
    if (engine->outliving.keep == NULL)
        return 0;
    int result = agree_on_secret(engine);
    return result != 0 ? result : find_records(&engine->outliving);
}

void outliving_free(struct unshard_engine *engine)
{
    free(engine->outliving.found);
    engine->outliving.found = NULL;
    engine->outliving.room = 0;
}

/* ---- one file ----------------------------------------------------------------------------------
 */

/* What is gathered is as its shards are, and in this place. */
static struct source_identity identity_of(const struct unshard_engine *engine, uint32_t number)
{
    const struct source_file *source = &engine->checkpoint->files[number];
    if (source->gathered == NULL)
        return engine->files[number].epoch->identity;
    uint64_t hash = XXH3_64bits_withSeed(source->path, strlen(source->path), SEED);
    for (uint32_t i = 0; i < source->gathered->source_count; i++) {
        const struct file_epoch *epoch = engine->files[source->gathered->sources[i].file].epoch;
        struct source_identity identity =
            epoch != NULL ? epoch->identity : (struct source_identity){0};
        hash = XXH3_64bits_withSeed(&identity, sizeof identity, hash);
    }
    return (struct source_identity){.device = GATHERED, .inode = hash, .size = source->size};
}

/* Takes it out of those that were found. NULL: there is none. */
static struct outliving_file *take_found(struct unshard_engine *engine,
                                         const struct source_identity *identity, uint32_t count)
{
    struct outliving *outliving = &engine->outliving;
    if (outliving->room == 0)
        return NULL;
    size_t at = place_of(outliving, identity);
    for (; outliving->found[at] != NULL; at = (at + 1) & (outliving->room - 1)) {
        struct outliving_file *record = outliving->found[at];
        if (record->chunk_count != count || record->chunk_bytes != engine->chunk_bytes ||
            (record->identity.device == GATHERED) != (identity->device == GATHERED) ||
            !source_same_content(&record->identity, identity))
            continue;
        if (identity->device == GATHERED && record->identity.inode != identity->inode)
            continue;
        static struct outliving_file taken; /* so that what lies behind it is still found */
        outliving->found[at] = &taken;
        return record;
    }
    return NULL;
}

static struct outliving_file *new_record(struct unshard_engine *engine, uint32_t number)
{
    uint32_t count = engine->files[number].chunk_count;
    struct outliving_file *record =
        unshard_keep_add(engine->outliving.keep, UNSHARD_KEEP_FILE, bytes_for(count));
    if (record == NULL)
        return NULL; /* of that much nothing is kept */
    record->identity = identity_of(engine, number);
    record->chunk_bytes = engine->chunk_bytes;
    record->chunk_count = count;
    unshard_keep_commit(record);
    return record;
}

static void use(struct unshard_engine *engine, struct file_state *file,
                struct outliving_file *record)
{
    lazy_array_free(file->digests, (size_t)file->chunk_count + 1, sizeof *file->digests);
    file->digests = record->tags;
    file->outlives = record;
    file->keep = engine->outliving.keep;
}

void outliving_adopt(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (engine->outliving.keep == NULL || file->chunk_count == 0)
        return;
    struct source_identity identity = identity_of(engine, number);
    struct outliving_file *record = take_found(engine, &identity, file->chunk_count);
    file->inherits = record != NULL;
    if (record == NULL)
        record = new_record(engine, number);
    if (record != NULL)
        use(engine, file, record);
}

void outliving_remove(struct file_state *file)
{
    if (file->outlives == NULL)
        return;
    unshard_keep_remove(file->keep, file->outlives);
    file->outlives = NULL;
    file->digests = NULL;
}

void outliving_renew(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (file->outlives == NULL)
        return;
    outliving_remove(file);
    struct outliving_file *record = new_record(engine, number);
    if (record != NULL) {
        use(engine, file, record);
        return;
    }
    file->digests = lazy_array_new((size_t)file->chunk_count + 1, sizeof *file->digests);
    if (file->digests == NULL)
        abort(); /* address space for what was just given back */
}

/* ---- verdicts ----------------------------------------------------------------------------------
 */

void outliving_good(struct file_state *file)
{
    if (file->outlives != NULL)
        atomic_store_explicit(&file->outlives->verdict, GOOD, memory_order_release);
}

void outliving_bad(struct file_state *file, const struct unshard_error *error)
{
    struct outliving_file *record = file->outlives;
    if (record == NULL)
        return;
    record->bad_offset = error->offset;
    snprintf(record->bad_code, sizeof record->bad_code, "%s", error->code);
    snprintf(record->bad_message, sizeof record->bad_message, "%s", error->message);
    atomic_store_explicit(&record->verdict, BAD, memory_order_release);
}

bool outliving_is_good(const struct unshard_engine *engine, uint32_t number)
{
    const struct outliving_file *record = engine->files[number].outlives;
    return record != NULL && record->verdict == GOOD;
}

/* Codes are literals. */
static const char *literal_of(const char *code)
{
    static const char *const codes[] = {"mismatch", "changed", HEADER_MISMATCH};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i], code) == 0)
            return codes[i];
    return codes[0];
}

bool outliving_is_bad(const struct unshard_engine *engine, uint32_t number,
                      struct unshard_error *error)
{
    struct outliving_file *record = engine->files[number].outlives;
    if (record == NULL || record->verdict != BAD)
        return false;
    record->bad_code[sizeof record->bad_code - 1] = '\0';
    record->bad_message[sizeof record->bad_message - 1] = '\0';
    error_set_at(error, literal_of(record->bad_code), EIO, record->bad_offset, "%s",
                 record->bad_message);
    return true;
}

/* ---- chunks ------------------------------------------------------------------------------------
 */

void outliving_mark(struct file_state *file, uint32_t index)
{
    if (file->outlives == NULL)
        return;
    const struct chunk *chunk = &file->chunks[index];
    bool published = chunk->state == CHUNK_PUBLISHED;
    uint8_t mark = (uint8_t)((chunk->seen ? SEEN : 0) | (chunk->checked ? CHECKED : 0) |
                             (published ? PUBLISHED : 0) | (chunk->consumed ? CONSUMED : 0));
    __atomic_store_n(&marks_of(file->outlives)[index], mark, __ATOMIC_RELEASE);
}

static void restore_one(struct unshard_engine *engine, uint32_t number, uint32_t index,
                        uint8_t mark)
{
    struct file_state *file = &engine->files[number];
    struct chunk *chunk = &file->chunks[index];
    bool shown = !chunk_is_unshown(file, index);
    chunk_touch(file, index);
    if (mark & SEEN) {
        chunk->seen = true;
        file->chunks_seen += shown;
        file->bytes_seen += shown ? chunk_length(engine, number, index) : 0;
    }
    if (mark & CHECKED) {
        chunk->checked = true;
        file->chunks_checked += shown;
    }
    if (mark & PUBLISHED)
        chunk_restore(engine, number, index, (mark & CONSUMED) != 0);
}

void outliving_restore(struct unshard_engine *engine, uint32_t number)
{
    struct file_state *file = &engine->files[number];
    if (!file->inherits || gate_is_blocked(&file->gate))
        return;
    file->inherits = false;
    const uint8_t *marks = marks_of(file->outlives);
    for (uint32_t i = 0; i < file->chunk_count; i++)
        if (marks[i] != 0)
            restore_one(engine, number, i, marks[i]);
}
