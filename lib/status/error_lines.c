/* SPDX-License-Identifier: MIT
 *
 * The lines of .unshard/errors. */
#include "base/error.h"
#include "base/text.h"
#include "status/words.h"

/* `TIME component="..." shard="..." code=... message="..."`; "-" stands for what does not apply. */
static void append_line(struct text *text, const char *component, const char *file,
                        const struct unshard_error *error)
{
    char when[STATUS_TIME_CAPACITY], field[2048];
    text_append_string(text, error->time != 0 ? status_time(when, error->time) : "-");
    text_printf(text, " component=\"%s\"", error_field(field, sizeof field, component));
    text_printf(text, " shard=\"%s\" code=%s", error_field(field, sizeof field, file), error->code);
    if (error->offset != UNSHARD_NO_OFFSET)
        text_printf(text, " offset=%llu", (unsigned long long)error->offset);
    if (error->errno_value != 0)
        text_printf(text, " errno=%d", error->errno_value);
    text_printf(text, " message=\"%s\"\n", error_field(field, sizeof field, error->message));
}

char *unshard_status_errors(const struct unshard_status *status)
{
    struct text text = {0};
    for (uint32_t i = 0; i < status->problem_count; i++)
        append_line(&text, "-", "-", &status->problems[i]);
    for (uint32_t i = 0; i < status->component_count; i++)
        if (status->components[i].error != NULL)
            append_line(&text, status->components[i].name, "-", status->components[i].error);
    for (uint32_t i = 0; i < status->file_count; i++) {
        const struct unshard_file_status *file = status->files[i];
        if (file->error != NULL)
            append_line(&text, file->component != NULL ? file->component : "-", file->path,
                        file->error);
    }
    return text_take(&text);
}
