/* SPDX-License-Identifier: MIT
 *
 * Strings of the JSON reader, and their writer. */
#ifndef JSON_JSON_STRING_H
#define JSON_JSON_STRING_H

#include "json/json_reader.h"

/* Both expect the reader at the opening quote and leave it behind the closing one; 0, -EINVAL with
 * the reader's problem set, -ENOMEM. json_string_skip checks all that json_string_read checks. */
int json_string_read(struct json_reader *reader, struct json_string *out);
int json_string_skip(struct json_reader *reader);

/* Appends a string in quotes, escaped as the reference writer of safetensors does: the seven short
 * escapes, other bytes below 0x20 as \u00 and two lower-case hex digits, all else as it stands. */
void json_string_write(struct text *text, const char *bytes, size_t length);

/* Appends a terminated file name, which may hold any bytes: as a string of JSON where it can be
 * one, else with the odd bytes escaped as error_quote escapes them. */
void json_name_write(struct text *text, const char *name);

#endif
