/* SPDX-License-Identifier: MIT */
#include "json/json_string.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

#define EACH_BYTE UINT64_C(0x0101010101010101)
#define HIGH_BITS UINT64_C(0x8080808080808080)

/* High bits of the bytes that end a run of plain ASCII: quote, backslash, control or non-ASCII. A
 * byte above such a byte may be marked too, never one below: the first mark is always right. */
static uint64_t special_bytes(uint64_t word)
{
    uint64_t quote = word ^ (EACH_BYTE * '"'), backslash = word ^ (EACH_BYTE * '\\');

    return ((word - EACH_BYTE * 0x20) | (quote - EACH_BYTE) | (backslash - EACH_BYTE) | word) &
           HIGH_BITS;
}

static const char *skip_plain(const char *position, const char *end)
{
    while (end - position >= 8) {
        uint64_t word;

        memcpy(&word, position, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        uint64_t marks = special_bytes(word);

        if (marks != 0)
            return position + __builtin_ctzll(marks) / 8;
        position += 8;
#else
        if (special_bytes(word) != 0)
            break;
        position += 8;
#endif
    }
    while (position < end && (unsigned char)*position >= 0x20 && (unsigned char)*position < 0x80 &&
           *position != '"' && *position != '\\')
        position++;
    return position;
}

static int hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

/* The four digits after \u, which is at the position. */
static int read_code_unit(struct json_reader *reader, unsigned *out)
{
    unsigned value = 0;

    if (reader->end - reader->position < 6)
        return json_problem(reader, "text ends in a \\u escape");
    for (size_t i = 2; i < 6; i++) {
        int digit = hex_digit(reader->position[i]);

        if (digit < 0)
            return json_problem(reader, "\\u without four hex digits");
        value = value << 4 | (unsigned)digit;
    }
    reader->position += 6;
    *out = value;
    return 0;
}

static int read_unicode_escape(struct json_reader *reader, unsigned *out)
{
    const char *first = reader->position;
    unsigned low = 0;
    *out = 0;
    int result = read_code_unit(reader, out);

    if (result != 0 || *out < 0xd800 || *out > 0xdfff)
        return result;
    if (*out < 0xdc00 && reader->end - reader->position >= 2 && reader->position[0] == '\\' &&
        reader->position[1] == 'u') {
        result = read_code_unit(reader, &low);
        if (result != 0)
            return result;
        if (low >= 0xdc00 && low <= 0xdfff) {
            *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
            return 0;
        }
    }
    reader->position = first;
    return json_problem(reader, "lone surrogate in a \\u escape");
}

/* Reads the escape at the position as UTF-8 bytes. */
static int read_escape(struct json_reader *reader, unsigned char bytes[4], size_t *size)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    unsigned code_point;
    const char *letter;

    if (reader->end - reader->position < 2)
        return json_problem(reader, "text ends in an escape");
    if (reader->position[1] == 'u') {
        int result = read_unicode_escape(reader, &code_point);

        *size = result == 0 ? utf8_encode(code_point, bytes) : 0;
        return result;
    }
    letter = memchr(letters, reader->position[1], sizeof letters - 1);
    if (letter == NULL)
        return json_problem(reader, "unknown escape");
    bytes[0] = (unsigned char)meanings[letter - letters];
    *size = 1;
    reader->position += 2;
    return 0;
}

/* Moves over bytes that stand for themselves, up to a quote or a backslash. */
static int skip_unescaped(struct json_reader *reader)
{
    for (;;) {
        reader->position = skip_plain(reader->position, reader->end);
        if (reader->position == reader->end)
            return json_problem(reader, "text ends inside a string");

        unsigned char byte = (unsigned char)*reader->position;

        if (byte == '"' || byte == '\\')
            return 0;
        if (byte < 0x20)
            return json_problem(reader, "control byte inside a string");

        size_t size = utf8_sequence((const unsigned char *)reader->position,
                                    (size_t)(reader->end - reader->position));

        if (size == 0)
            return json_problem(reader, "invalid UTF-8");
        reader->position += size;
    }
}

/* Goes on after the first escape was met; out == NULL checks only. */
static int read_with_escapes(struct json_reader *reader, const char *first, struct json_string *out)
{
    struct text *scratch = &reader->scratch;
    int result = 0;

    scratch->length = 0;
    if (out != NULL)
        text_append(scratch, first, (size_t)(reader->position - first));
    while (result == 0 && *reader->position == '\\') {
        unsigned char bytes[4];
        size_t size = 0;

        result = read_escape(reader, bytes, &size);
        if (result != 0)
            break;
        first = reader->position;
        result = skip_unescaped(reader);
        if (out != NULL && result == 0) {
            text_append(scratch, bytes, size);
            text_append(scratch, first, (size_t)(reader->position - first));
        }
    }
    if (result == 0 && scratch->failed)
        result = -ENOMEM;
    if (result == 0 && out != NULL)
        *out = (struct json_string){scratch->data, scratch->length};
    return result;
}

static int string_any(struct json_reader *reader, struct json_string *out)
{
    const char *first = ++reader->position;
    int result = skip_unescaped(reader);

    if (result != 0)
        return result;
    if (*reader->position == '\\')
        result = read_with_escapes(reader, first, out);
    else if (out != NULL)
        *out = (struct json_string){first, (size_t)(reader->position - first)};
    if (result == 0)
        reader->position++;
    return result;
}

int json_string_read(struct json_reader *reader, struct json_string *out)
{
    return string_any(reader, out);
}

int json_string_skip(struct json_reader *reader)
{
    return string_any(reader, NULL);
}

static void write_escape(struct text *text, unsigned char byte)
{
    static const char bytes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *known = memchr(bytes, byte, sizeof bytes - 1);
    char escape[8];

    if (known != NULL)
        snprintf(escape, sizeof escape, "\\%c", letters[known - bytes]);
    else
        snprintf(escape, sizeof escape, "\\u%04x", byte);
    text_append_string(text, escape);
}

void json_string_write(struct text *text, const char *bytes, size_t length)
{
    size_t run = 0;

    text_append(text, "\"", 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];

        if (byte >= 0x20 && byte != '"' && byte != '\\')
            continue;
        text_append(text, bytes + run, i - run);
        write_escape(text, byte);
        run = i + 1;
    }
    text_append(text, bytes + run, length - run);
    text_append(text, "\"", 1);
}

void json_name_write(struct text *text, const char *name)
{
    struct text quoted = {0};
    struct json_reader reader;
    char escaped[512];
    json_string_write(&quoted, name, strlen(name));
    if (quoted.failed) {
        text->failed = true;
        return;
    }
    json_reader_init(&reader, quoted.data, quoted.length);
    if (json_skip_value(&reader) == 0) {
        text_append(text, quoted.data, quoted.length);
    } else {
        error_quote(escaped, sizeof escaped, name, strlen(name));
        json_string_write(text, escaped, strlen(escaped));
    }
    json_reader_free(&reader);
    text_free(&quoted);
}
