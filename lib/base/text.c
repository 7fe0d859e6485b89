/* SPDX-License-Identifier: MIT */
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `extra` more bytes and the terminator. */
static bool reserve(struct text *text, size_t extra)
{
    size_t needed, capacity = text->capacity;
    char *data;

    if (text->failed)
        return false;
    if (__builtin_add_overflow(text->length, extra, &needed) || needed >= PTRDIFF_MAX) {
        text->failed = true;
        return false;
    }
    if (needed < capacity)
        return true;
    capacity = capacity < 64 ? 64 : capacity * 2;
    if (capacity <= needed)
        capacity = needed + 1;
    data = realloc(text->data, capacity);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void text_append(struct text *text, const void *bytes, size_t length)
{
    if (!reserve(text, length) || text->data == NULL)
        return;
    if (length > 0)
        memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = '\0';
}

void text_append_string(struct text *text, const char *string)
{
    text_append(text, string, strlen(string));
}

void text_append_u64(struct text *text, uint64_t value)
{
    char digits[20];
    size_t start = sizeof digits;

    do {
        digits[--start] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    text_append(text, digits + start, sizeof digits - start);
}

void text_printf(struct text *text, const char *format, ...)
{
    va_list arguments;
    int length;

    if (!reserve(text, 128))
        return;
    size_t room = text->capacity - text->length;

    va_start(arguments, format);
    length = vsnprintf(text->data + text->length, room, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length >= room) {
        text->data[text->length] = '\0';
        if (!reserve(text, (size_t)length))
            return;
        va_start(arguments, format);
        length =
            vsnprintf(text->data + text->length, text->capacity - text->length, format, arguments);
        va_end(arguments);
    }
    if (length < 0) {
        text->data[text->length] = '\0';
        text->failed = true;
        return;
    }
    text->length += (size_t)length;
}

char *text_take(struct text *text)
{
    char *data = NULL;

    if (!text->failed && text->data == NULL)
        text_append(text, "", 0);
    if (!text->failed) {
        data = text->data;
        text->data = NULL;
    }
    text_free(text);
    return data;
}

void text_free(struct text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}
