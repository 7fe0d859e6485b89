/* SPDX-License-Identifier: MIT */
#include "json/json_reader.h"

#include <errno.h>
#include <string.h>

#include "json/json_string.h"

void json_reader_init(struct json_reader *reader, const char *text, size_t length)
{
    /* levels are set when they are entered; clearing them would only cost time. */
    reader->start = reader->position = text;
    reader->end = text + length;
    reader->scratch = (struct text){0};
    reader->problem = NULL;
    reader->problem_offset = 0;
    reader->depth = 0;
}

void json_reader_free(struct json_reader *reader)
{
    text_free(&reader->scratch);
}

int json_problem(struct json_reader *reader, const char *problem)
{
    if (reader->problem == NULL) {
        reader->problem = problem;
        reader->problem_offset = json_offset(reader);
    }
    return -EINVAL;
}

size_t json_offset(const struct json_reader *reader)
{
    return (size_t)(reader->position - reader->start);
}

static void skip_space(struct json_reader *reader)
{
    while (reader->position < reader->end &&
           (*reader->position == ' ' || *reader->position == '\n' || *reader->position == '\t' ||
            *reader->position == '\r'))
        reader->position++;
}

/* Consumes the byte when it comes next, after white space. */
static bool accept(struct json_reader *reader, char byte)
{
    skip_space(reader);
    if (reader->position == reader->end || *reader->position != byte)
        return false;
    reader->position++;
    return true;
}

static bool is_digit(const struct json_reader *reader)
{
    return reader->position < reader->end && *reader->position >= '0' && *reader->position <= '9';
}

enum json_type json_peek(struct json_reader *reader)
{
    skip_space(reader);
    if (reader->position == reader->end)
        return JSON_INVALID;
    switch (*reader->position) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOLEAN;
    case 'n':
        return JSON_NULL;
    case '-':
        return JSON_NUMBER;
    default:
        return is_digit(reader) ? JSON_NUMBER : JSON_INVALID;
    }
}

/* ---- objects and arrays ------------------------------------------------------------------------
 */

static int enter(struct json_reader *reader, bool is_object)
{
    if (reader->depth == JSON_MAX_DEPTH)
        return json_problem(reader, "nested deeper than 128 levels");
    if (!accept(reader, is_object ? '{' : '['))
        return json_problem(reader, is_object ? "expected an object" : "expected an array");
    reader->levels[reader->depth++] = (struct json_level){.is_object = is_object};
    return 0;
}

int json_enter_object(struct json_reader *reader)
{
    return enter(reader, true);
}

int json_enter_array(struct json_reader *reader)
{
    return enter(reader, false);
}

/* 1: another member follows, 0: the end was consumed. */
static int next_member(struct json_reader *reader, char closing)
{
    struct json_level *level = &reader->levels[reader->depth - 1];

    if (accept(reader, closing)) {
        reader->depth--;
        return 0;
    }
    if (level->started && !accept(reader, ','))
        return json_problem(reader,
                            level->is_object ? "expected ',' or '}'" : "expected ',' or ']'");
    level->started = true;
    return 1;
}

/* Whether a key is decoded or only checked is the caller's choice. */
static int read_key(struct json_reader *reader, struct json_string *key)
{
    if (json_peek(reader) != JSON_STRING)
        return json_problem(reader, "expected a key in double quotes");

    int result = key != NULL ? json_string_read(reader, key) : json_string_skip(reader);

    if (result == 0 && !accept(reader, ':'))
        result = json_problem(reader, "expected ':'");
    return result;
}

int json_next_key(struct json_reader *reader, struct json_string *key)
{
    int more = next_member(reader, '}');

    if (more <= 0)
        return more;

    int result = read_key(reader, key);

    return result == 0 ? 1 : result;
}

int json_next_element(struct json_reader *reader)
{
    return next_member(reader, ']');
}

/* ---- values ------------------------------------------------------------------------------------
 */

int json_read_string(struct json_reader *reader, struct json_string *out)
{
    if (json_peek(reader) != JSON_STRING)
        return json_problem(reader, "expected a string");
    return json_string_read(reader, out);
}

int json_read_u64(struct json_reader *reader, uint64_t *out)
{
    uint64_t value = 0;
    const char *first;

    skip_space(reader);
    first = reader->position;
    if (!is_digit(reader))
        return json_problem(reader, "expected an unsigned integer");
    while (is_digit(reader)) {
        uint64_t digit = (uint64_t)(*reader->position - '0');

        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            reader->position = first;
            return json_problem(reader, "integer above 18446744073709551615");
        }
        reader->position++;
    }
    if ((*first == '0' && reader->position - first > 1) ||
        (reader->position < reader->end &&
         (*reader->position == '.' || *reader->position == 'e' || *reader->position == 'E'))) {
        reader->position = first;
        return json_problem(reader, "expected a plain decimal integer");
    }
    *out = value;
    return 0;
}

static int skip_digits(struct json_reader *reader)
{
    if (!is_digit(reader))
        return json_problem(reader, "expected a digit");
    while (is_digit(reader))
        reader->position++;
    return 0;
}

static bool accept_here(struct json_reader *reader, char byte)
{
    if (reader->position == reader->end || *reader->position != byte)
        return false;
    reader->position++;
    return true;
}

static int skip_number(struct json_reader *reader)
{
    int result;

    accept_here(reader, '-');
    if (accept_here(reader, '0'))
        result = is_digit(reader) ? json_problem(reader, "number with a leading zero") : 0;
    else
        result = skip_digits(reader);
    if (result == 0 && accept_here(reader, '.'))
        result = skip_digits(reader);
    if (result == 0 && (accept_here(reader, 'e') || accept_here(reader, 'E'))) {
        if (!accept_here(reader, '+'))
            accept_here(reader, '-');
        result = skip_digits(reader);
    }
    return result;
}

static int skip_word(struct json_reader *reader)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i]);

        if ((size_t)(reader->end - reader->position) >= length &&
            memcmp(reader->position, words[i], length) == 0) {
            reader->position += length;
            return 0;
        }
    }
    return json_problem(reader, "expected a value");
}

/* A value that holds no others is skipped, one that does is entered. */
static int skip_or_enter(struct json_reader *reader)
{
    switch (json_peek(reader)) {
    case JSON_OBJECT:
        return json_enter_object(reader);
    case JSON_ARRAY:
        return json_enter_array(reader);
    case JSON_STRING:
        return json_string_skip(reader);
    case JSON_NUMBER:
        return skip_number(reader);
    case JSON_BOOLEAN:
    case JSON_NULL:
        return skip_word(reader);
    case JSON_INVALID:
        break;
    }
    return json_problem(reader, reader->position == reader->end ? "text ends too early"
                                                                : "expected a value");
}

int json_skip_value(struct json_reader *reader)
{
    size_t outer = reader->depth;
    int result = skip_or_enter(reader);

    /* A loop over the reader's own stack of levels: no recursion that input could drive. */
    while (result == 0 && reader->depth > outer) {
        int more = reader->levels[reader->depth - 1].is_object ? json_next_key(reader, NULL)
                                                               : json_next_element(reader);

        result = more > 0 ? skip_or_enter(reader) : more;
    }
    return result;
}

int json_skip_value_span(struct json_reader *reader, struct json_string *span)
{
    skip_space(reader);

    const char *first = reader->position;
    int result = json_skip_value(reader);

    *span = (struct json_string){first, (size_t)(reader->position - first)};
    return result;
}

int json_expect_end(struct json_reader *reader)
{
    skip_space(reader);
    if (reader->position != reader->end)
        return json_problem(reader, "something follows the end of the JSON value");
    return 0;
}
