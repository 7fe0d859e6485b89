/* SPDX-License-Identifier: MIT */
#include "json/json_write.h"

#include "json/json_string.h"

void json_member_write(struct text *text, const char *key, const char *value)
{
    text_printf(text, "\"%s\":", key);
    if (value == NULL)
        text_append_string(text, "null");
    else
        json_name_write(text, value);
}

void json_error_write(struct text *text, const struct unshard_error *error)
{
    if (error == NULL) {
        text_append_string(text, "null");
        return;
    }
    text_append_string(text, "{");
    json_member_write(text, "code", error->code != NULL ? error->code : "error");
    text_append_string(text, ",");
    json_member_write(text, "message", error->message);
    text_append_string(text, ",\"offset\":");
    if (error->offset == UNSHARD_NO_OFFSET)
        text_append_string(text, "null");
    else
        text_append_u64(text, error->offset);
    text_printf(text, ",\"errno\":%d}", error->errno_value);
}

void json_errors_write(struct text *text, const char *key, const struct unshard_error *errors,
                       uint32_t count)
{
    text_printf(text, "\"%s\":[", key);
    for (uint32_t i = 0; i < count; i++) {
        text_append_string(text, i > 0 ? "," : "");
        json_error_write(text, &errors[i]);
    }
    text_append_string(text, "]");
}
