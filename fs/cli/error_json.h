/* SPDX-License-Identifier: MIT
 *
 * Errors in what the commands print under --json. */
#ifndef FS_CLI_ERROR_JSON_H
#define FS_CLI_ERROR_JSON_H

#include <cjson/cJSON.h>

#include "unshard.h"

/* Adds "error" to the object: code, message, offset and errno, each of the latter two null when
 * there is none; null for a NULL error. Out of memory it is left out. */
void error_json_add(cJSON *object, const struct unshard_error *error);
/* {"error": ...} in one line, the caller's to free; NULL when memory is out. */
char *error_json_object(const struct unshard_error *error);

#endif
