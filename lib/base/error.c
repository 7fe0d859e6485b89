/* SPDX-License-Identifier: MIT */
#include "base/error.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Ends a message that did not fit with dots, so that nobody takes the rest for complete. */
static void mark_cut(char *message, size_t capacity)
{
    memcpy(message + capacity - 4, "...", 4);
}

static int fill(struct unshard_error *error, const char *code, int errno_value, uint64_t offset,
                const char *format, va_list arguments)
{
    /* A local copy first: an argument may point into error->message when a caller adds to it. */
    char message[sizeof error->message];

    if (error != NULL) {
        int length = vsnprintf(message, sizeof message, format, arguments);

        if (length < 0)
            message[0] = '\0';
        else if ((size_t)length >= sizeof message)
            mark_cut(message, sizeof message);
        error->code = code;
        error->errno_value = errno_value;
        error->offset = offset;
        error->time = 0;
        memcpy(error->message, message, sizeof message);
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

int error_set_at(struct unshard_error *error, const char *code, int errno_value, uint64_t offset,
                 const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int result = fill(error, code, errno_value, offset, format, arguments);
    va_end(arguments);
    return result;
}

int error_no_memory(struct unshard_error *error)
{
    return error_set(error, "no-memory", ENOMEM, "out of memory");
}

/* Bytes that would break a line of a log, or a terminal (C1 controls are 0xc2 0x80..0x9f). */
static bool is_plain(const unsigned char *bytes, size_t size)
{
    if (size == 0)
        return false;
    if (size == 1)
        return bytes[0] >= 0x20 && bytes[0] != 0x7f && bytes[0] != '"' && bytes[0] != '\'' &&
               bytes[0] != '\\';
    return !(size == 2 && bytes[0] == 0xc2 && bytes[1] < 0xa0);
}

const char *error_quote(char *out, size_t capacity, const char *name, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)name;
    size_t used = 0, last_fit = 0, position = 0;

    if (capacity == 0)
        return out;
    while (position < length) {
        char piece[8];
        size_t size = utf8_sequence(bytes + position, length - position), piece_length;

        if (is_plain(bytes + position, size)) {
            memcpy(piece, bytes + position, size);
            piece_length = size;
            position += size;
        } else {
            piece_length = (size_t)snprintf(piece, sizeof piece, "\\x%02x", bytes[position]);
            position++;
        }
        if (used + piece_length >= capacity)
            break;
        memcpy(out + used, piece, piece_length);
        used += piece_length;
        if (used + 3 < capacity)
            last_fit = used;
        if (position == length) {
            out[used] = '\0';
            return out;
        }
    }
    if (length == 0) {
        out[0] = '\0';
        return out;
    }
    size_t dots = capacity - 1 < 3 ? capacity - 1 : 3;
    memset(out + last_fit, '.', dots);
    out[last_fit + dots] = '\0';
    return out;
}
