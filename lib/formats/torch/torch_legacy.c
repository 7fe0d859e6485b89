/* SPDX-License-Identifier: MIT
 *
 * The layout of torch.save before PyTorch 1.6, see formats/README.md 5.5. */
#include "formats/torch/torch_file.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/little_endian.h"
#include "base/string_map.h"
#include "formats/torch/torch_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_READ (UINT64_C(1) << 20)
#define LEGACY_PROTOCOL 1001

static const unsigned char magic[10] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

struct legacy {
    const struct byte_reader *reader;
    const char *path;
    struct arena scratch; /* what is not needed once the tensors are known */
    struct unshard_error *error;
    char *bytes; /* the beginning of the file; malloc'd */
    uint64_t length, position;
    struct torch_storage *storages; /* one for each persistent id */
    uint32_t storage_count;
    struct string_map keys; /* key -> first of its storages */
};

/* ---- the pickles -------------------------------------------------------------------------------
 */

/* Has the first `wanted` bytes of the file in memory. */
static int load(struct legacy *file, uint64_t wanted)
{
    if (wanted > file->reader->size)
        wanted = file->reader->size;
    arena_free(&file->scratch); /* what was made of fewer bytes */
    char *bytes = arena_charge(&file->scratch, wanted + file->length) ? malloc(wanted + 1) : NULL;
    if (bytes == NULL)
        return error_no_memory(file->error);
    int result = file->reader->read(file->reader->context, 0, bytes, wanted);
    if (result != 0) {
        free(bytes);
        return error_set_at(file->error, "read-error", -result, 0, "%s: cannot read: %s",
                            file->path, strerrordesc_np(-result));
    }
    free(file->bytes);
    arena_discharge(&file->scratch, file->length);
    file->bytes = bytes;
    file->length = wanted;
    return 0;
}

static int next_pickle(struct legacy *file, struct pickle_result *out)
{
    struct pickle_input input = {.bytes = file->bytes + file->position,
                                 .length = file->length - file->position,
                                 .offset = file->position,
                                 .path = file->path};
    int result = pickle_read(&input, &file->scratch, out, file->error);
    if (result == 0)
        file->position += out->consumed;
    return result;
}

static int not_torch(struct legacy *file)
{
    return error_set(file->error, "not-a-state-dict", ENOTSUP, "%s: is no file of torch.save",
                     file->path);
}

/* A file that does not begin with the magic number is not one of ours, whatever else it is. */
static int read_preamble(struct legacy *file)
{
    static const unsigned char start[] = {0x80, 2, 0x8a, 10};
    struct pickle_result value;
    if (file->length < sizeof start + sizeof magic || memcmp(file->bytes, start, 4) != 0 ||
        memcmp(file->bytes + 4, magic, sizeof magic) != 0)
        return not_torch(file);
    int result = next_pickle(file, &value);
    if (result == 0)
        result = next_pickle(file, &value);
    if (result == 0 && (value.root->kind != PICKLE_INT || value.root->integer != LEGACY_PROTOCOL))
        return error_set_at(file->error, "unsupported-pickle", ENOTSUP, file->position,
                            "%s: of another protocol than %d", file->path, LEGACY_PROTOCOL);
    if (result == 0)
        result = next_pickle(file, &value);
    if (result != 0)
        return result;
    const struct pickle_value *little = pickle_dict_get(value.root, "little_endian");
    if (little == NULL || little->kind != PICKLE_BOOL)
        return error_set_at(file->error, "malformed-pickle", 0, file->position,
                            "%s: the byte order is missing", file->path);
    if (!little->boolean)
        return error_set_at(file->error, "unsupported-pickle", ENOTSUP, file->position,
                            "%s: its elements are big-endian", file->path);
    return 0;
}

static int read_pickles(struct legacy *file, struct pickle_result *object,
                        struct pickle_result *keys)
{
    file->position = 0;
    int result = read_preamble(file);
    if (result == 0)
        result = next_pickle(file, object);
    return result == 0 ? next_pickle(file, keys) : result;
}

/* The pickles' lengths are stored nowhere: what was read at first may have to be more. */
static int load_pickles(struct legacy *file, struct pickle_result *object,
                        struct pickle_result *keys)
{
    for (uint64_t wanted = FIRST_READ;; wanted *= 4) {
        int result = load(file, wanted);
        if (result == 0)
            result = read_pickles(file, object, keys);
        if (result != -ENODATA)
            return result;
        if (file->length == file->reader->size) {
            error_set_at(file->error, "truncated", 0, file->reader->size,
                         "%s: ends within its pickles", file->path);
            return -EINVAL;
        }
        if (file->length >= PICKLE_MAX_BYTES) {
            error_set(file->error, "malformed-pickle", EFBIG, "%s: its pickle is too large",
                      file->path);
            return -EFBIG;
        }
    }
}

/* ---- storages ----------------------------------------------------------------------------------
 */

static int malformed(struct legacy *file, const char *what, const struct torch_storage *storage)
{
    char quoted[96];
    return error_set(file->error, "malformed-pickle", 0, "%s: storage \"%s\": %s", file->path,
                     error_quote(quoted, sizeof quoted, storage->key, storage->key_length), what);
}

/* All ids of one key must agree on its size. */
static int index_storages(struct legacy *file, const struct pickle_result *object)
{
    int result =
        torch_storages_attach(object, file->path, &file->scratch, &file->storages, file->error);
    if (result != 0)
        return result;
    file->storage_count = object->persistent_count;
    for (uint32_t i = 0; i < file->storage_count; i++) {
        struct torch_storage *storage = &file->storages[i];
        uint32_t first = 0;
        if (storage->type->role == PICKLE_ROLE_UNTYPED_STORAGE)
            return error_set(file->error, "unsupported-pickle", ENOTSUP,
                             "%s: a storage without element type, which torch.load cannot read "
                             "in this layout, either",
                             file->path);
        int added = string_map_add(&file->keys, storage->key, storage->key_length, i, &first);
        if (added < 0)
            return error_no_memory(file->error);
        if (added == 0 && (file->storages[first].bytes != storage->bytes ||
                           file->storages[first].type != storage->type))
            return malformed(file, "it is described in two ways", storage);
    }
    return 0;
}

/* Checks the number of elements in front of a storage, and notes where its bytes begin. Where they
 * should begin is known beyond the end of a truncated file, too. */
static int place_storage(struct legacy *file, struct torch_storage *storage)
{
    char number[8];
    uint64_t start = file->position;
    bool there = range_within(start, sizeof number, file->reader->size);
    int result =
        there ? file->reader->read(file->reader->context, start, number, sizeof number) : 0;
    if (result != 0)
        return error_set_at(file->error, "read-error", -result, start,
                            "%s: read at %" PRIu64 ": %s", file->path, start,
                            strerrordesc_np(-result));
    if (there && load_le64(number) != storage->bytes / storage->element_size)
        return error_set_at(file->error, "malformed-pickle", 0, start,
                            "%s: a storage has %" PRIu64 " elements, the pickle needs %" PRIu64,
                            file->path, load_le64(number), storage->bytes / storage->element_size);
    if (!checked_add(start, sizeof number, &storage->offset) ||
        !checked_add(storage->offset, storage->bytes, &file->position))
        return malformed(file, "its size overflows", storage);
    return 0;
}

static bool is_placed(const struct torch_storage *storage)
{
    return storage->offset != 0;
}

/* The storage of a key in the list, which must be one of the object's and new. */
static struct torch_storage *listed_storage(struct legacy *file, const struct pickle_value *key)
{
    uint32_t first;
    if (key->kind != PICKLE_STRING ||
        !string_map_find(&file->keys, key->string, key->bytes, &first) ||
        is_placed(&file->storages[first]))
        return NULL;
    return &file->storages[first];
}

/* Asks for the numbers in front of all storages, so that they need not be waited for one by one. */
static void advise_numbers(struct legacy *file, const struct pickle_items *keys)
{
    const struct byte_reader *reader = file->reader;
    uint64_t position = file->position;
    for (uint32_t i = 0; i < keys->count && reader->advise != NULL; i++) {
        const struct torch_storage *storage = listed_storage(file, keys->values[i]);
        if (storage == NULL || !range_within(position, 8, reader->size))
            return;
        reader->advise(reader->context, position, 8);
        if (!checked_add(position, 8 + storage->bytes, &position))
            return;
    }
}

/* Where each storage begins is known only by going through all before it. Afterwards
 * file->position is the end of the last one. */
static int place_storages(struct legacy *file, const struct pickle_value *keys)
{
    if (keys->kind != PICKLE_LIST)
        return error_set(file->error, "malformed-pickle", 0, "%s: the list of storages is a %s",
                         file->path, pickle_kind_name(keys->kind));
    if (keys->items->count != file->keys.count)
        return error_set(file->error, "malformed-pickle", 0,
                         "%s: a list of %u storages, and the pickle has %zu", file->path,
                         keys->items->count, file->keys.count);
    advise_numbers(file, keys->items);
    for (uint32_t i = 0; i < keys->items->count; i++) {
        struct torch_storage *storage = listed_storage(file, keys->items->values[i]);
        if (storage == NULL)
            return error_set(file->error, "malformed-pickle", 0,
                             "%s: the list of storages does not fit the pickle", file->path);
        int result = place_storage(file, storage);
        if (result != 0)
            return result;
    }
    for (uint32_t i = 0; i < file->storage_count; i++) {
        uint32_t first = 0;
        string_map_find(&file->keys, file->storages[i].key, file->storages[i].key_length, &first);
        file->storages[i].offset = file->storages[first].offset;
    }
    return 0;
}

static int check_end(const struct legacy *file)
{
    if (file->position == file->reader->size)
        return 0;
    if (file->position < file->reader->size)
        return error_set_at(file->error, "malformed-pickle", 0, file->position,
                            "%s: goes on after its last storage", file->path);
    return error_set_at(file->error, "truncated", 0, file->reader->size,
                        "%s: data is truncated: it should end at %" PRIu64 ", the file has %" PRIu64
                        " bytes",
                        file->path, file->position, file->reader->size);
}

int torch_legacy_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                      struct tensor_set *out, struct unshard_error *error)
{
    struct legacy file = {
        .reader = reader, .path = path, .scratch = arena_beside(arena), .error = error};
    struct pickle_result object = {0}, keys = {0};
    int result = load_pickles(&file, &object, &keys);
    if (result == 0)
        result = index_storages(&file, &object);
    if (result == 0)
        result = place_storages(&file, keys.root);
    if (result == 0 && file.position < reader->size)
        result = check_end(&file);
    if (result == 0)
        result = torch_state_read(&object, path, file.position, arena, out, error);
    if (result == 0) /* of a truncated file the tensors are known all the same */
        result = check_end(&file);
    string_map_free(&file.keys);
    free(file.bytes);
    arena_free_beside(&file.scratch, arena);
    return result;
}
