/* SPDX-License-Identifier: MIT */
#include "fs/cli/error_json.h"

void error_json_add(cJSON *object, const struct unshard_error *error)
{
    if (!error) {
        cJSON_AddNullToObject(object, "error");
        return;
    }
    cJSON *item = cJSON_AddObjectToObject(object, "error");
    cJSON_AddStringToObject(item, "code", error->code ? error->code : "error");
    cJSON_AddStringToObject(item, "message", error->message);
    if (error->offset != UNSHARD_NO_OFFSET)
        cJSON_AddNumberToObject(item, "offset", (double)error->offset);
    else
        cJSON_AddNullToObject(item, "offset");
    if (error->errno_value > 0)
        cJSON_AddNumberToObject(item, "errno", error->errno_value);
    else
        cJSON_AddNullToObject(item, "errno");
}

char *error_json_object(const struct unshard_error *error)
{
    cJSON *object = cJSON_CreateObject();
    error_json_add(object, error);
    char *text = cJSON_PrintUnformatted(object);
    cJSON_Delete(object);
    return text;
}
