/* SPDX-License-Identifier: MIT
 *
 * A strict pull parser for JSON (RFC 8259) in memory, for input that nobody vouches for: UTF-8 is
 * validated, integers are exact, strings carry their length and may hold NUL, nesting is bounded,
 * and the first error is kept with its byte offset.
 *
 *     json_reader_init(&reader, text, length);
 *     result = json_enter_object(&reader);
 *     while (result == 0 && (more = json_next_key(&reader, &key)) > 0)
 *         result = json_skip_value(&reader);          or json_read_..., json_enter_...
 *     ... json_expect_end(&reader) ... json_reader_free(&reader);
 *
 * Functions return 0 (or what they say) or -EINVAL with `problem` set, -ENOMEM without memory.
 * After an error only json_reader_free may be called. Nothing is copied but strings with escapes.
 */
#ifndef JSON_JSON_READER_H
#define JSON_JSON_READER_H

#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_MAX_DEPTH 128

enum json_type {
    JSON_INVALID, /* nothing that begins a value */
    JSON_NULL,
    JSON_BOOLEAN,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* Bytes in the text, or decoded ones in the reader's scratch buffer: valid until the next string is
 * read. Not terminated. */
struct json_string {
    const char *bytes;
    size_t length;
};

struct json_level {
    bool is_object, started;
};

struct json_reader {
    const char *start, *position, *end;
    struct text scratch;
    const char *problem;   /* what was wrong, a static string; NULL: nothing */
    size_t problem_offset; /* where, from the start of the text */
    size_t depth;
    struct json_level levels[JSON_MAX_DEPTH];
};

/* The text must outlive the reader. */
void json_reader_init(struct json_reader *reader, const char *text, size_t length);
void json_reader_free(struct json_reader *reader);

/* Records a problem at the current position, unless one is recorded, and returns -EINVAL. */
int json_problem(struct json_reader *reader, const char *problem);
/* The type of the value that comes next; consumes white space only. */
enum json_type json_peek(struct json_reader *reader);
/* The offset of what comes next, from the start of the text. */
size_t json_offset(const struct json_reader *reader);

int json_enter_object(struct json_reader *reader);
/* 1: *key was read and its value comes next, 0: the object has ended. */
int json_next_key(struct json_reader *reader, struct json_string *key);
int json_enter_array(struct json_reader *reader);
/* 1: an element comes next, 0: the array has ended. */
int json_next_element(struct json_reader *reader);

int json_read_string(struct json_reader *reader, struct json_string *out);
/* A plain decimal integer from 0 to 2^64-1: no sign, fraction, exponent or leading zero. */
int json_read_u64(struct json_reader *reader, uint64_t *out);
/* Checks a value of any type and leaves it out. */
int json_skip_value(struct json_reader *reader);
/* json_skip_value that also tells where the value stands in the text. */
int json_skip_value_span(struct json_reader *reader, struct json_string *span);
/* Only white space may follow. */
int json_expect_end(struct json_reader *reader);

#endif
