/* SPDX-License-Identifier: MIT */
#include "formats/gguf/gguf_cursor.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "formats/gguf/gguf.h"

/* Enough for the header of most files, and one request on any storage. */
#define FIRST_READ (UINT64_C(1) << 20)

/* Reads on so that at least `wanted` bytes are loaded, or as far as the file goes. */
static int load(struct gguf_cursor *cursor, uint64_t wanted)
{
    uint64_t target = cursor->loaded == 0 ? FIRST_READ : 2 * (uint64_t)cursor->loaded;
    unsigned char *data;
    int result;

    target = target < wanted ? wanted : target;
    target = target < cursor->reader->size ? target : cursor->reader->size;
    data =
        arena_charge(cursor->arena, target - cursor->loaded) ? realloc(cursor->data, target) : NULL;
    if (data == NULL)
        return error_no_memory(cursor->error);
    cursor->data = data;
    result = cursor->reader->read(cursor->reader->context, cursor->loaded, data + cursor->loaded,
                                  target - cursor->loaded);
    if (result != 0)
        return error_set_at(cursor->error, "read-error", -result, cursor->loaded,
                            "%s: cannot read the header: %s", cursor->path,
                            strerrordesc_np(-result));
    cursor->loaded = target;
    return 0;
}

int gguf_cursor_need(struct gguf_cursor *cursor, uint64_t length, const char *what)
{
    if (length <= cursor->loaded - cursor->position)
        return 0;
    if (length > cursor->reader->size - cursor->position)
        return error_set_at(cursor->error, "truncated", 0, cursor->position,
                            "%s: header: %s: %" PRIu64 " bytes at %zu do not fit in a file of "
                            "%" PRIu64 " bytes",
                            cursor->path, what, length, cursor->position, cursor->reader->size);
    if (length > GGUF_MAX_HEADER - cursor->position)
        return error_set_at(cursor->error, "header-too-large", 0, cursor->position,
                            "%s: header: %s: %" PRIu64 " bytes at %zu pass the limit of %" PRIu64
                            " for a header",
                            cursor->path, what, length, cursor->position, GGUF_MAX_HEADER);
    return load(cursor, cursor->position + length);
}

/* Copies the next `size` bytes out. */
static int take(struct gguf_cursor *cursor, const char *what, void *out, size_t size)
{
    int result = gguf_cursor_need(cursor, size, what);

    if (result != 0)
        return result;
    memcpy(out, cursor->data + cursor->position, size);
    cursor->position += size;
    return 0;
}

int gguf_cursor_u32(struct gguf_cursor *cursor, const char *what, uint32_t *out)
{
    uint32_t value;
    int result = take(cursor, what, &value, sizeof value);

    if (result == 0)
        *out = le32toh(value);
    return result;
}

int gguf_cursor_u64(struct gguf_cursor *cursor, const char *what, uint64_t *out)
{
    uint64_t value;
    int result = take(cursor, what, &value, sizeof value);

    if (result == 0)
        *out = le64toh(value);
    return result;
}

int gguf_cursor_string(struct gguf_cursor *cursor, const char *what, size_t *start, size_t *length)
{
    uint64_t value = 0;
    int result = gguf_cursor_u64(cursor, what, &value);

    if (result != 0)
        return result;
    if (value > GGUF_MAX_STRING)
        return error_set_at(cursor->error, "malformed-header", 0, cursor->position - 8,
                            "%s: header: %s: string length %" PRIu64 " is above the limit of "
                            "%" PRIu64,
                            cursor->path, what, value, GGUF_MAX_STRING);
    result = gguf_cursor_need(cursor, value, what);
    if (result != 0)
        return result;
    *start = cursor->position;
    *length = (size_t)value;
    cursor->position += (size_t)value;
    return 0;
}

bool gguf_cursor_keep(struct gguf_cursor *cursor)
{
    unsigned char *data = realloc(cursor->data, cursor->position);
    if (data == NULL || !arena_adopt(cursor->arena, data)) {
        cursor->data = data != NULL ? data : cursor->data;
        return false;
    }
    arena_discharge(cursor->arena, cursor->loaded - cursor->position);
    cursor->data = data;
    cursor->loaded = cursor->position;
    cursor->kept = true;
    return true;
}

void gguf_cursor_free(struct gguf_cursor *cursor)
{
    if (cursor->kept)
        return;
    free(cursor->data);
    arena_discharge(cursor->arena, cursor->loaded);
    cursor->data = NULL;
}
