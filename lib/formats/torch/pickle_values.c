/* SPDX-License-Identifier: MIT */
#include "formats/torch/pickle_values.h"

#include <string.h>

const char *pickle_kind_name(enum pickle_kind kind)
{
    static const char *const names[] = {
        [PICKLE_NONE] = "None",         [PICKLE_BOOL] = "bool",          [PICKLE_INT] = "int",
        [PICKLE_BIG_INT] = "large int", [PICKLE_FLOAT] = "float",        [PICKLE_STRING] = "string",
        [PICKLE_TUPLE] = "tuple",       [PICKLE_LIST] = "list",          [PICKLE_SET] = "set",
        [PICKLE_DICT] = "dict",         [PICKLE_GLOBAL] = "global",      [PICKLE_CALL] = "call",
        [PICKLE_OBJECT] = "object",     [PICKLE_PERSISTENT] = "storage",
    };
    return names[kind];
}

bool pickle_is_string(const struct pickle_value *value, const char *text)
{
    return value != NULL && value->kind == PICKLE_STRING && value->bytes == strlen(text) &&
           memcmp(value->string, text, value->bytes) == 0;
}

const struct pickle_value *pickle_tuple_item(const struct pickle_value *value, uint32_t i)
{
    if (value == NULL || value->kind != PICKLE_TUPLE || i >= value->items->count)
        return NULL;
    return value->items->values[i];
}

const struct pickle_value *pickle_dict_get(const struct pickle_value *dict, const char *key)
{
    const struct pickle_value *found = NULL;
    if (dict == NULL || dict->kind != PICKLE_DICT)
        return NULL;
    for (uint32_t i = 0; i + 1 < dict->items->count; i += 2)
        if (pickle_is_string(dict->items->values[i], key))
            found = dict->items->values[i + 1];
    return found;
}

bool pickle_is_call(const struct pickle_value *value, enum pickle_role role)
{
    return value != NULL && value->kind == PICKLE_CALL && value->call->global->role == role;
}

bool pickle_is_object(const struct pickle_value *value, enum pickle_role role)
{
    return value != NULL && value->kind == PICKLE_OBJECT && value->call->global->role == role;
}

bool pickle_read_sizes(const struct pickle_value *value, uint64_t *out, uint32_t capacity,
                       uint32_t *count)
{
    if (pickle_is_call(value, PICKLE_ROLE_SIZE)) {
        if (value->call->arguments->items->count != 1)
            return false;
        value = value->call->arguments->items->values[0];
    }
    if (value == NULL || value->kind != PICKLE_TUPLE || value->items->count > capacity)
        return false;
    *count = value->items->count;
    for (uint32_t i = 0; i < *count; i++) {
        const struct pickle_value *item = value->items->values[i];
        if (item->kind != PICKLE_INT || item->integer < 0)
            return false;
        out[i] = (uint64_t)item->integer;
    }
    return true;
}
