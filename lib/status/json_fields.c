/* SPDX-License-Identifier: MIT */
#include "status/json_fields.h"

#include <string.h>

const char *field_string(const cJSON *object, const char *key, const char *fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : fallback;
}

double field_number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsTrue(item))
        return 1;
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? item->valuedouble : 0;
}

unsigned field_count(const cJSON *object, const char *key)
{
    double value = field_number(object, key);
    return value < 1e9 ? (unsigned)value : 1000000000;
}

uint64_t field_bytes(const cJSON *object, const char *key)
{
    double value = field_number(object, key);
    return value < 9e18 ? (uint64_t)value : UINT64_C(9000000000000000000);
}

const cJSON *field_array(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsArray(item) ? item : NULL;
}

const cJSON *field_object(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsObject(item) ? item : NULL;
}

bool field_is(const cJSON *object, const char *key, const char *word)
{
    return strcmp(field_string(object, key, ""), word) == 0;
}

cJSON *status_parse(const char *json)
{
    cJSON *root = cJSON_Parse(json);
    if (cJSON_IsObject(root) && field_count(root, "schema") == STATUS_SCHEMA)
        return root;
    cJSON_Delete(root);
    return NULL;
}

bool status_is_unwell(const cJSON *root)
{
    return field_count(root, "errors") > 0 || field_is(root, "state", "failed") ||
           field_is(root, "state", "degraded");
}

const char *status_component_label(const cJSON *component)
{
    const char *name = field_string(component, "name", "?");
    return strcmp(name, ".") == 0 ? field_string(component, "view", name) : name;
}
