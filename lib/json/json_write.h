/* SPDX-License-Identifier: MIT
 *
 * Pieces of the JSON that the library prints. */
#ifndef JSON_JSON_WRITE_H
#define JSON_JSON_WRITE_H

#include "base/text.h"
#include "unshard.h"

/* "key":"value" with a terminated value of any bytes (see json_name_write), or "key":null. */
void json_member_write(struct text *text, const char *key, const char *value);
/* {"code":...,"message":...,"offset":number or null,"errno":number}, or null. */
void json_error_write(struct text *text, const struct unshard_error *error);
/* "key":[...] of errors. */
void json_errors_write(struct text *text, const char *key, const struct unshard_error *errors,
                       uint32_t count);

#endif
