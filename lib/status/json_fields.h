/* SPDX-License-Identifier: MIT
 *
 * Fields of a status JSON, which may come from another version of the program or from a file that
 * anybody wrote: each may be missing or of another type. Pure functions; objects may be NULL. */
#ifndef STATUS_JSON_FIELDS_H
#define STATUS_JSON_FIELDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#define STATUS_SCHEMA 1

/* The document if it is of a schema known here; to free with cJSON_Delete. NULL otherwise. */
cJSON *status_parse(const char *json);

/* The string, or fallback (which may be NULL). */
const char *field_string(const cJSON *object, const char *key, const char *fallback);
/* The number if it is positive, 1 for true, else 0. */
double field_number(const cJSON *object, const char *key);
/* The same as a whole number, clipped so that nothing of a hostile file overflows. */
unsigned field_count(const cJSON *object, const char *key);
uint64_t field_bytes(const cJSON *object, const char *key);
/* The array or object, NULL when there is none. */
const cJSON *field_array(const cJSON *object, const char *key);
const cJSON *field_object(const cJSON *object, const char *key);
bool field_is(const cJSON *object, const char *key, const char *word);

/* Whether it tells of anything that has failed. */
bool status_is_unwell(const cJSON *root);
/* What to call a component: its name, but for the root's (".") that of its view. */
const char *status_component_label(const cJSON *component);

#endif
