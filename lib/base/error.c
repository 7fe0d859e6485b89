/* SPDX-License-Identifier: MIT */
#include "base/error.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int fill(struct unshard_error *error, const char *code, int errno_value, uint64_t offset,
                const char *format, va_list arguments)
{
    /* A local copy first: an argument may point into error->message when a caller adds to it. It is
     * longer, so that what does not fit is seen, and cut with dots. */
    char message[2 * sizeof error->message];

    if (error != NULL) {
        int length = vsnprintf(message, sizeof message, format, arguments);

        error->code = code;
        error->errno_value = errno_value;
        error->offset = offset;
        error->time = 0;
        error_printable(error->message, sizeof error->message, message,
                        length < 0 ? 0 : strlen(message));
    }
    return errno_value > 0 ? -errno_value : -EINVAL;
}

int error_set(struct unshard_error *error, const char *code, int errno_value, const char *format,
              ...)
{
    va_list arguments;

    va_start(arguments, format);
    int result = fill(error, code, errno_value, UNSHARD_NO_OFFSET, format, arguments);
    va_end(arguments);
    return result;
}

int unshard_error_set(struct unshard_error *error, const char *code, int errno_value,
                      const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int result = fill(error, code, errno_value, UNSHARD_NO_OFFSET, format, arguments);
    va_end(arguments);
    return result;
}

int error_set_at(struct unshard_error *error, const char *code, int errno_value, uint64_t offset,
                 const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int result = fill(error, code, errno_value, offset, format, arguments);
    va_end(arguments);
    return result;
}

void error_stamp(struct unshard_error *error)
{
    if (error->time == 0)
        error->time = (int64_t)time(NULL);
}

int error_no_memory(struct unshard_error *error)
{
    return error_set(error, "no-memory", ENOMEM, "out of memory");
}

/* ---- names and texts ---------------------------------------------------------------------------
 */

/* What else than bytes that would break a line or a terminal is written otherwise. */
enum escaping { PLAIN, FIELD, QUOTED };

/* C1 controls are 0xc2 0x80..0x9f. */
static bool is_printable(const unsigned char *bytes, size_t size)
{
    if (size <= 1)
        return size == 1 && bytes[0] >= 0x20 && bytes[0] != 0x7f;
    return !(size == 2 && bytes[0] == 0xc2 && bytes[1] < 0xa0);
}

/* Writes the next character, or a byte that is none, in at most 4 bytes. Returns what it took of
 * the text. */
static size_t escape_next(const unsigned char *bytes, size_t left, enum escaping escaping,
                          char piece[8], size_t *piece_length)
{
    size_t size = utf8_sequence(bytes, left);
    bool quote = bytes[0] == '"' || bytes[0] == '\'' || bytes[0] == '\\';
    if (!is_printable(bytes, size) || (quote && escaping == QUOTED)) {
        *piece_length = (size_t)snprintf(piece, 8, "\\x%02x", bytes[0]);
        return 1;
    }
    bool field = bytes[0] == '"' && escaping == FIELD;
    piece[0] = '\\';
    memcpy(piece + field, bytes, size);
    *piece_length = size + field;
    return size;
}

static const char *escape(char *out, size_t capacity, const char *text, size_t length,
                          enum escaping escaping)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t used = 0, last_fit = 0, position = 0;

    if (capacity == 0)
        return out;
    while (position < length) {
        char piece[8];
        size_t piece_length;
        size_t taken =
            escape_next(bytes + position, length - position, escaping, piece, &piece_length);
        if (used + piece_length >= capacity)
            break;
        memcpy(out + used, piece, piece_length);
        used += piece_length;
        position += taken;
        if (used + 3 < capacity)
            last_fit = used;
    }
    if (position == length) {
        out[used] = '\0';
        return out;
    }
    size_t dots = capacity - 1 < 3 ? capacity - 1 : 3;
    memset(out + last_fit, '.', dots);
    out[last_fit + dots] = '\0';
    return out;
}

const char *error_quote(char *out, size_t capacity, const char *name, size_t length)
{
    return escape(out, capacity, name, length, QUOTED);
}

const char *error_printable(char *out, size_t capacity, const char *text, size_t length)
{
    return escape(out, capacity, text, length, PLAIN);
}

const char *error_field(char *out, size_t capacity, const char *value)
{
    return escape(out, capacity, value, strlen(value), FIELD);
}

/* ---- the same for users of the library ---------------------------------------------------------
 */

const char *unshard_quote(char *out, size_t capacity, const char *name, size_t length)
{
    return error_quote(out, capacity, name, length);
}

const char *unshard_printable(char *out, size_t capacity, const char *text, size_t length)
{
    return error_printable(out, capacity, text, length);
}

const char *unshard_field(char *out, size_t capacity, const char *value)
{
    return error_field(out, capacity, value);
}

size_t unshard_utf8_sequence(const void *bytes, size_t length)
{
    return utf8_sequence(bytes, length);
}

bool error_is_of_storage(const struct unshard_error *error)
{
    return strcmp(error->code, "read-error") == 0 ||
           (strcmp(error->code, "unreadable") == 0 && error->errno_value != EINVAL &&
            error->errno_value != EACCES);
}
