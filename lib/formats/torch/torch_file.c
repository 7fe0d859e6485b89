/* SPDX-License-Identifier: MIT */
#include "formats/torch/torch_file.h"

#include "base/error.h"
#include "base/text.h"
#include "formats/foreign_content.h"
#include "formats/torch/torch_state.h"
#include "formats/torch/zip_archive.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_MAX 1024U
#define BYTEORDER_MAX 16U

struct torch_zip {
    const struct byte_reader *reader;
    const char *path;
    struct arena scratch; /* what is not needed once the tensors are known */
    struct unshard_error *error;
    struct zip_archive archive;
    const char *prefix; /* with its slash */
    size_t prefix_length;
    char *pickle; /* bytes of data.pkl, malloc'd: strings of values point into it */
    struct pickle_result values;
};

static int fail_read(struct torch_zip *file, uint64_t offset, int result)
{
    return error_set_at(file->error, "read-error", -result, offset, "%s: read at %" PRIu64 ": %s",
                        file->path, offset, strerrordesc_np(-result));
}

/* Everything lies below the first entry's first directory, whatever that is called. */
static int find_prefix(struct torch_zip *file)
{
    const struct zip_entry *first = file->archive.entries;
    const char *slash =
        file->archive.count == 0 ? NULL : memchr(first->name, '/', first->name_length);
    if (slash == NULL || (size_t)(slash - first->name) > PREFIX_MAX)
        return error_set(file->error, "not-a-state-dict", ENOTSUP,
                         "%s: a zip archive, but none of torch.save", file->path);
    file->prefix = first->name;
    file->prefix_length = (size_t)(slash - first->name) + 1;
    return 0;
}

static const struct zip_entry *find_entry(const struct torch_zip *file, const char *directory,
                                          const char *name, size_t length)
{
    char full[PREFIX_MAX + 512];
    size_t used = file->prefix_length, middle = strlen(directory);
    if (length > 256)
        return NULL;
    memcpy(full, file->prefix, used);
    memcpy(full + used, directory, middle);
    memcpy(full + used + middle, name, length);
    return zip_archive_find(&file->archive, full, used + middle + length);
}

/* What is read must be stored as it is. */
static int check_stored(struct torch_zip *file, const struct zip_entry *entry)
{
    char quoted[96];
    if (entry->stored)
        return 0;
    return error_set_at(file->error, "unsupported-zip", ENOTSUP, entry->header_offset,
                        "%s: zip archive: entry \"%s\" is compressed", file->path,
                        error_quote(quoted, sizeof quoted, entry->name, entry->name_length));
}

/* Elements of another byte order would have to be swapped. Without the entry it is little-endian:
 * what torch.load assumes, too. */
static int check_byteorder(struct torch_zip *file)
{
    char text[BYTEORDER_MAX + 1] = {0}, quoted[64];
    const struct zip_entry *entry = find_entry(file, "", "byteorder", 9);
    if (entry == NULL)
        return 0;
    size_t length = entry->size < BYTEORDER_MAX ? (size_t)entry->size : BYTEORDER_MAX;
    int result = check_stored(file, entry);
    if (result != 0)
        return result;
    result = file->reader->read(file->reader->context, entry->data_offset, text, length);
    if (result != 0)
        return fail_read(file, entry->data_offset, result);
    if (entry->size == 6 && memcmp(text, "little", 6) == 0)
        return 0;
    if (entry->size == 3 && memcmp(text, "big", 3) == 0)
        return error_set_at(file->error, "unsupported-pickle", ENOTSUP, entry->data_offset,
                            "%s: its elements are big-endian", file->path);
    return error_set_at(file->error, "malformed-zip", 0, entry->data_offset,
                        "%s: byteorder is \"%s\"", file->path,
                        error_quote(quoted, sizeof quoted, text, length));
}

static int read_pickle(struct torch_zip *file)
{
    const struct zip_entry *entry = find_entry(file, "", "data.pkl", 8);
    if (find_entry(file, "", "constants.pkl", 13) != NULL)
        return error_set(file->error, "not-a-state-dict", ENOTSUP, "%s: is a TorchScript program",
                         file->path);
    if (entry == NULL)
        return error_set(file->error, "not-a-state-dict", ENOTSUP,
                         "%s: a zip archive without data.pkl", file->path);
    if (entry->size > PICKLE_MAX_BYTES)
        return error_set_at(file->error, "malformed-pickle", EFBIG, entry->data_offset,
                            "%s: data.pkl of %" PRIu64 " bytes is too large", file->path,
                            entry->size);
    int result = check_stored(file, entry);
    if (result != 0)
        return result;
    if (arena_charge(&file->scratch, entry->size))
        file->pickle = malloc(entry->size + 1);
    if (file->pickle == NULL)
        return error_no_memory(file->error);
    result =
        file->reader->read(file->reader->context, entry->data_offset, file->pickle, entry->size);
    if (result != 0)
        return fail_read(file, entry->data_offset, result);
    struct pickle_input input = {.bytes = file->pickle,
                                 .length = entry->size,
                                 .offset = entry->data_offset,
                                 .path = file->path};
    result = pickle_read(&input, &file->scratch, &file->values, file->error);
    if (result == -ENODATA || (result == 0 && file->values.consumed != entry->size))
        return error_set_at(file->error, "malformed-pickle", 0,
                            entry->data_offset + file->values.consumed,
                            "%s: pickle: %s the end of data.pkl", file->path,
                            result == 0 ? "it stops before" : "no STOP before");
    return result;
}

/* Finds the bytes of every storage that the pickle names. */
static int place_storages(struct torch_zip *file)
{
    struct torch_storage *storages = NULL;
    char quoted[96];
    int result =
        torch_storages_attach(&file->values, file->path, &file->scratch, &storages, file->error);
    for (uint32_t i = 0; i < file->values.persistent_count && result == 0; i++) {
        struct torch_storage *storage = &storages[i];
        const struct zip_entry *entry =
            find_entry(file, "data/", storage->key, storage->key_length);
        error_quote(quoted, sizeof quoted, storage->key, storage->key_length);
        if (entry == NULL)
            return error_set(file->error, "malformed-zip", 0, "%s: there is no entry data/%s",
                             file->path, quoted);
        result = check_stored(file, entry);
        if (result == 0 && entry->size != storage->bytes)
            return error_set_at(file->error, "malformed-zip", 0, entry->data_offset,
                                "%s: data/%s has %" PRIu64 " bytes, the pickle needs %" PRIu64,
                                file->path, quoted, entry->size, storage->bytes);
        storage->offset = entry->data_offset;
    }
    return result;
}

/* All but the tensors. */
static int open_zip(struct torch_zip *file)
{
    int result =
        zip_archive_read(file->reader, file->path, &file->scratch, &file->archive, file->error);
    if (result == 0)
        result = find_prefix(file);
    if (result == 0)
        result = read_pickle(file);
    if (result == 0)
        result = check_byteorder(file);
    return result == 0 ? place_storages(file) : result;
}

static void close_zip(struct torch_zip *file, struct arena *arena)
{
    zip_archive_free(&file->archive);
    free(file->pickle);
    arena_free_beside(&file->scratch, arena);
}

int torch_file_read_tensor(const struct byte_reader *reader, const char *path, const char *name,
                           struct arena *arena, struct tensor *out, struct unshard_error *error)
{
    struct torch_zip file = {
        .reader = reader, .path = path, .scratch = arena_beside(arena), .error = error};
    int result = open_zip(&file);
    if (result == 0)
        result = torch_state_tensor(file.values.root, path, name, arena, out, error);
    close_zip(&file, arena);
    return result;
}

static int read_zip(const struct byte_reader *reader, const char *path, struct arena *arena,
                    struct tensor_set *out, struct unshard_error *error)
{
    struct torch_zip file = {
        .reader = reader, .path = path, .scratch = arena_beside(arena), .error = error};
    int result = open_zip(&file);
    if (result == 0)
        result = torch_state_read(&file.values, path, reader->size, arena, out, error);
    close_zip(&file, arena);
    return result;
}

int torch_file_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                    struct tensor_set *out, struct unshard_error *error)
{
    unsigned char head[8] = {0};
    size_t length = reader->size < sizeof head ? (size_t)reader->size : sizeof head;
    int result = length == 0 ? 0 : reader->read(reader->context, 0, head, length);
    if (result != 0)
        return error_set_at(error, "read-error", -result, 0, "%s: cannot read its beginning: %s",
                            path, strerrordesc_np(-result));
    if (memcmp(head, "PK\3\4", 4) == 0)
        return read_zip(reader, path, arena, out, error);
    if (head[0] != 0x80 && foreign_content(reader, path, NULL, error) != 0) /* no pickle */
        return -EINVAL;
    return torch_legacy_read(reader, path, arena, out, error);
}
