/* SPDX-License-Identifier: MIT */
#include "formats/torch/zip_archive.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/little_endian.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define END_BYTES 22U
#define END64_BYTES 56U
#define LOCATOR_BYTES 20U
#define CENTRAL_BYTES 46U
#define LOCAL_BYTES 30U
#define COMMENT_MAX 65535U
#define NAME_MAX_BYTES 4096U
#define SMALL_TAIL 4096U
#define DIRECTORY_MAX (UINT64_C(256) << 20)
#define ZIP64_EXTRA 1U
#define SATURATED16 UINT16_MAX
#define SATURATED32 UINT32_MAX

static const char end_signature[] = "PK\5\6", end64_signature[] = "PK\6\6",
                  locator_signature[] = "PK\6\7", central_signature[] = "PK\1\2",
                  local_signature[] = "PK\3\4";

struct zip_reader {
    const struct byte_reader *reader;
    const char *path;
    struct arena *arena;
    struct unshard_error *error;
    uint64_t directory_offset, directory_size, entry_count;
    /* The end of the file, which is read at once: end records and usually the directory. */
    char *tail;
    uint64_t tail_offset;
    char *directory; /* malloc'd, or NULL when it lies in the tail */
};

#define malformed(zip, offset, format, ...)                                            \
    error_set_at((zip)->error, "malformed-zip", 0, offset, "%s: zip archive: " format, \
                 (zip)->path, __VA_ARGS__)

static int read_at(struct zip_reader *zip, uint64_t offset, void *buffer, size_t length)
{
    int result = zip->reader->read(zip->reader->context, offset, buffer, length);
    if (result == 0)
        return 0;
    return error_set_at(zip->error, "read-error", -result, offset, "%s: read at %" PRIu64 ": %s",
                        zip->path, offset, strerrordesc_np(-result));
}

static bool has_signature(const char *at, const char *signature)
{
    return memcmp(at, signature, 4) == 0;
}

/* ---- the end records ---------------------------------------------------------------------------
 */

/* Where in the tail the end record begins: the last one whose comment ends with the file. Tensor
 * data may hold the signature by chance, so it need not be the only one. */
static const char *find_end_record(const struct zip_reader *zip, size_t tail_length)
{
    for (size_t back = END_BYTES; back <= tail_length && back <= END_BYTES + COMMENT_MAX; back++) {
        const char *at = zip->tail + tail_length - back;
        if (has_signature(at, end_signature) && load_le16(at + 20) == back - END_BYTES)
            return at;
    }
    return NULL;
}

/* The zip64 end record, when a locator stands before the end record. *end becomes its position. */
static int read_end64(struct zip_reader *zip, const char *end_record, uint64_t *end)
{
    char record[END64_BYTES];
    const char *locator = end_record - LOCATOR_BYTES;
    if (end_record - zip->tail < LOCATOR_BYTES || !has_signature(locator, locator_signature))
        return 0;
    uint64_t locator_offset = *end - LOCATOR_BYTES, offset = load_le64(locator + 8);
    if (!range_within(offset, END64_BYTES, locator_offset))
        return malformed(zip, locator_offset,
                         "the zip64 locator points to %" PRIu64 ", outside of the file", offset);
    int result = read_at(zip, offset, record, sizeof record);
    if (result != 0)
        return result;
    if (!has_signature(record, end64_signature) ||
        load_le64(record + 4) != locator_offset - offset - 12)
        return malformed(zip, offset, "%s", "no zip64 end record where the locator points");
    if (load_le32(record + 16) != 0 || load_le32(record + 20) != 0 ||
        load_le64(record + 24) != load_le64(record + 32))
        return malformed(zip, offset, "%s", "it has several parts");
    zip->entry_count = load_le64(record + 32);
    zip->directory_size = load_le64(record + 40);
    zip->directory_offset = load_le64(record + 48);
    *end = offset;
    return 1;
}

/* A value of the end record must be that of the zip64 record, or saturated. */
static bool agrees(uint64_t value, uint64_t wide, uint64_t saturated)
{
    return value == wide || (value == saturated && wide >= saturated);
}

static int check_end_records(struct zip_reader *zip, const char *record, uint64_t record_offset)
{
    uint64_t count = load_le16(record + 10), size = load_le32(record + 12),
             offset = load_le32(record + 16), end = record_offset;
    if (load_le16(record + 4) != 0 || load_le16(record + 6) != 0 ||
        load_le16(record + 8) != load_le16(record + 10))
        return malformed(zip, record_offset, "%s", "it has several parts");
    int wide = read_end64(zip, record, &end);
    if (wide < 0)
        return wide;
    if (wide == 0) {
        zip->entry_count = count;
        zip->directory_size = size;
        zip->directory_offset = offset;
    } else if (!agrees(count, zip->entry_count, SATURATED16) ||
               !agrees(size, zip->directory_size, SATURATED32) ||
               !agrees(offset, zip->directory_offset, SATURATED32)) {
        return malformed(zip, record_offset, "%s", "its two end records disagree");
    }
    if (zip->directory_size > end || zip->directory_offset != end - zip->directory_size)
        return malformed(zip, record_offset,
                         "the directory of %" PRIu64 " bytes at %" PRIu64
                         " does not end where the end record begins, at %" PRIu64,
                         zip->directory_size, zip->directory_offset, end);
    if (zip->entry_count > ZIP_MAX_ENTRIES || zip->directory_size > DIRECTORY_MAX ||
        zip->entry_count > zip->directory_size / CENTRAL_BYTES)
        return malformed(zip, record_offset,
                         "a directory of %" PRIu64 " bytes cannot hold %" PRIu64 " entries",
                         zip->directory_size, zip->entry_count);
    return 0;
}

static int read_tail(struct zip_reader *zip, size_t length)
{
    char *tail = realloc(zip->tail, length + 1);
    if (tail == NULL) {
        error_no_memory(zip->error);
        return -ENOMEM;
    }
    zip->tail = tail;
    zip->tail_offset = zip->reader->size - length;
    return length > 0 ? read_at(zip, zip->tail_offset, zip->tail, length) : 0;
}

/* What torch.save writes has no comment and a small directory: a page is enough to see it all. */
static int read_end(struct zip_reader *zip)
{
    const size_t lengths[] = {SMALL_TAIL, END_BYTES + COMMENT_MAX + END64_BYTES + LOCATOR_BYTES};
    const char *record = NULL;
    for (size_t i = 0; i < 2 && record == NULL; i++) {
        size_t length = lengths[i] < zip->reader->size ? lengths[i] : (size_t)zip->reader->size;
        int result = read_tail(zip, length);
        if (result != 0)
            return result;
        record = find_end_record(zip, length);
        /* The records in front of it have to be seen as well. */
        if (zip->tail_offset > 0 && i == 0 && record != NULL && record - zip->tail < LOCATOR_BYTES)
            record = NULL;
    }
    if (record == NULL)
        return error_set_at(zip->error, "truncated", 0, zip->reader->size,
                            "%s: begins as a zip archive but has no end record: the file was cut "
                            "off or not written to its end",
                            zip->path);
    return check_end_records(zip, record, zip->tail_offset + (uint64_t)(record - zip->tail));
}

static int read_directory(struct zip_reader *zip, const char **out)
{
    if (zip->directory_offset >= zip->tail_offset) {
        *out = zip->tail + (zip->directory_offset - zip->tail_offset);
        return 0;
    }
    if (arena_charge(zip->arena, zip->directory_size))
        zip->directory = malloc(zip->directory_size + 1);
    if (zip->directory == NULL)
        return error_no_memory(zip->error);
    *out = zip->directory;
    return read_at(zip, zip->directory_offset, zip->directory, zip->directory_size);
}

/* ---- entries -----------------------------------------------------------------------------------
 */

/* Takes what is saturated in the entry from its zip64 field: uncompressed size, compressed size,
 * offset, in this order. False: the field is missing or too short. */
static bool apply_zip64(const char *extra, size_t length, uint64_t *size, uint64_t *stored,
                        uint64_t *offset)
{
    uint64_t *wanted[] = {size, stored, offset};
    size_t next = 0;
    while (next < 3 && *wanted[next] != SATURATED32)
        next++;
    if (next == 3)
        return true;
    while (length >= 4) {
        size_t field = load_le16(extra + 2);
        if (field > length - 4)
            return false;
        if (load_le16(extra) == ZIP64_EXTRA) {
            const char *at = extra + 4;
            for (size_t left = field; next < 3; next++) {
                if (*wanted[next] != SATURATED32)
                    continue;
                if (left < 8)
                    return false;
                *wanted[next] = load_le64(at);
                at += 8;
                left -= 8;
            }
            return true;
        }
        extra += 4 + field;
        length -= 4 + field;
    }
    return false;
}

/* One entry of the directory. *used: its bytes. */
static int parse_central(struct zip_reader *zip, const char *at, uint64_t left, uint64_t offset,
                         struct zip_entry *entry, uint64_t *used)
{
    char quoted[96];
    if (left < CENTRAL_BYTES || !has_signature(at, central_signature))
        return malformed(zip, offset, "%s", "no directory entry where one should be");
    uint64_t size = load_le32(at + 24), stored = load_le32(at + 20);
    uint32_t name_length = load_le16(at + 28), extra_length = load_le16(at + 30);
    *used = CENTRAL_BYTES + (uint64_t)name_length + extra_length + load_le16(at + 32);
    if (*used > left)
        return malformed(zip, offset, "%s", "a directory entry goes past the directory");
    const char *name = at + CENTRAL_BYTES;
    error_quote(quoted, sizeof quoted, name, name_length);
    if (name_length == 0 || name_length > NAME_MAX_BYTES || memchr(name, '\0', name_length) != NULL)
        return malformed(zip, offset, "an entry is called \"%s\"", quoted);
    if (load_le16(at + 8) & 0x2041)
        return malformed(zip, offset, "entry \"%s\" is encrypted", quoted);
    if (load_le16(at + 34) != 0)
        return malformed(zip, offset, "entry \"%s\" is in another part", quoted);
    entry->header_offset = load_le32(at + 42);
    if (!apply_zip64(name + name_length, extra_length, &size, &stored, &entry->header_offset))
        return malformed(zip, offset, "entry \"%s\" lacks its zip64 sizes", quoted);
    entry->stored = load_le16(at + 10) == 0;
    if (entry->stored && size != stored)
        return malformed(zip, offset, "entry \"%s\" has sizes %" PRIu64 " and %" PRIu64, quoted,
                         size, stored);
    entry->size = stored;
    entry->name_length = name_length;
    entry->name = arena_copy_string(zip->arena, name, name_length);
    return entry->name == NULL ? error_no_memory(zip->error) : 0;
}

static int parse_directory(struct zip_reader *zip, const char *directory, struct zip_archive *out)
{
    uint64_t position = 0, used = 0;
    char quoted[96];
    for (uint32_t i = 0; i < out->count; i++) {
        struct zip_entry *entry = &out->entries[i];
        int result = parse_central(zip, directory + position, zip->directory_size - position,
                                   zip->directory_offset + position, entry, &used);
        if (result != 0)
            return result;
        position += used;
        int added = string_map_add(&out->names, entry->name, entry->name_length, i, NULL);
        if (added < 0)
            return error_no_memory(zip->error);
        if (added == 0)
            return malformed(zip, zip->directory_offset + position, "two entries are called \"%s\"",
                             error_quote(quoted, sizeof quoted, entry->name, entry->name_length));
    }
    if (position != zip->directory_size)
        return malformed(zip, zip->directory_offset + position, "%s",
                         "the directory goes on after its last entry");
    return 0;
}

/* Finds where the data begins: the local header has lengths of its own. */
static int read_local(struct zip_reader *zip, struct zip_entry *entry)
{
    char local[LOCAL_BYTES + NAME_MAX_BYTES], quoted[96];
    size_t length = LOCAL_BYTES + entry->name_length;
    error_quote(quoted, sizeof quoted, entry->name, entry->name_length);
    if (!range_within(entry->header_offset, length, zip->directory_offset))
        return malformed(zip, entry->header_offset, "entry \"%s\" begins outside of the file",
                         quoted);
    int result = read_at(zip, entry->header_offset, local, length);
    if (result != 0)
        return result;
    if (!has_signature(local, local_signature))
        return malformed(zip, entry->header_offset, "entry \"%s\" has no local header", quoted);
    if (load_le16(local + 26) != entry->name_length ||
        memcmp(local + LOCAL_BYTES, entry->name, entry->name_length) != 0)
        return malformed(zip, entry->header_offset,
                         "entry \"%s\" has another name in its local header", quoted);
    if ((load_le16(local + 8) == 0) != entry->stored || load_le16(local + 6) & 0x2041)
        return malformed(zip, entry->header_offset,
                         "entry \"%s\" is something else by its local header", quoted);
    entry->data_offset = entry->header_offset + length + load_le16(local + 28);
    if (!range_within(entry->data_offset, entry->size, zip->directory_offset))
        return malformed(zip, entry->header_offset,
                         "entry \"%s\" of %" PRIu64 " bytes goes past the data", quoted,
                         entry->size);
    return 0;
}

static int compare_by_header(const void *left, const void *right)
{
    const struct zip_entry *const *a = left, *const *b = right;
    return ((*a)->header_offset > (*b)->header_offset) -
           ((*a)->header_offset < (*b)->header_offset);
}

static int check_overlap(struct zip_reader *zip, const struct zip_archive *archive)
{
    int result = 0;
    uint64_t end = 0;
    char quoted[96];
    const struct zip_entry **sorted = calloc(archive->count + 1U, sizeof *sorted);
    if (sorted == NULL)
        return error_no_memory(zip->error);
    for (uint32_t i = 0; i < archive->count; i++)
        sorted[i] = &archive->entries[i];
    qsort(sorted, archive->count, sizeof(struct zip_entry *), compare_by_header);
    for (uint32_t i = 0; i < archive->count && result == 0; i++) {
        const struct zip_entry *entry = sorted[i];
        if (entry->header_offset < end)
            result =
                malformed(zip, entry->header_offset, "entry \"%s\" overlaps with the one before it",
                          error_quote(quoted, sizeof quoted, entry->name, entry->name_length));
        end = entry->data_offset + entry->size;
    }
    free(sorted);
    return result;
}

static int read_locals(struct zip_reader *zip, struct zip_archive *archive)
{
    const struct byte_reader *reader = zip->reader;
    for (uint32_t i = 0; i < archive->count && reader->advise != NULL; i++)
        if (archive->entries[i].header_offset < zip->directory_offset)
            reader->advise(reader->context, archive->entries[i].header_offset,
                           LOCAL_BYTES + archive->entries[i].name_length);
    for (uint32_t i = 0; i < archive->count; i++) {
        int result = read_local(zip, &archive->entries[i]);
        if (result != 0)
            return result;
    }
    return check_overlap(zip, archive);
}

int zip_archive_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                     struct zip_archive *out, struct unshard_error *error)
{
    struct zip_reader zip = {.reader = reader, .path = path, .arena = arena, .error = error};
    const char *directory = NULL;
    *out = (struct zip_archive){0};
    int result = read_end(&zip);
    if (result == 0)
        result = read_directory(&zip, &directory);
    if (result == 0) {
        out->count = (uint32_t)zip.entry_count;
        out->entries = arena_alloc_array(arena, out->count, sizeof *out->entries);
        if (out->entries != NULL) {
            result = parse_directory(&zip, directory, out);
        } else {
            error_no_memory(error);
            result = -ENOMEM;
        }
    }
    if (result == 0)
        result = read_locals(&zip, out);
    free(zip.tail);
    free(zip.directory);
    return result;
}

void zip_archive_free(struct zip_archive *archive)
{
    string_map_free(&archive->names);
}

const struct zip_entry *zip_archive_find(const struct zip_archive *archive, const char *name,
                                         size_t length)
{
    uint32_t number;
    return string_map_find(&archive->names, name, length, &number) ? &archive->entries[number]
                                                                   : NULL;
}
