/* SPDX-License-Identifier: MIT */
#include "base/text.h"
#include "verify/report.h"
#include "json/json_string.h"

const char *unshard_verdict_name(enum unshard_verdict verdict)
{
    static const char *const names[UNSHARD_VERDICT_COUNT] = {
        [UNSHARD_VERIFIED] = "verified",     [UNSHARD_UNVERIFIED] = "unverified",
        [UNSHARD_MISMATCH] = "mismatch",     [UNSHARD_MISSING] = "missing",
        [UNSHARD_UNREADABLE] = "unreadable", [UNSHARD_CONTRADICTED] = "contradicted",
    };
    return (unsigned)verdict < UNSHARD_VERDICT_COUNT ? names[verdict] : "unknown";
}

static void write_member(struct text *text, const char *key, const char *value)
{
    text_printf(text, "\"%s\":", key);
    if (value == NULL)
        text_append_string(text, "null");
    else
        json_name_write(text, value);
}

static void write_offset(struct text *text, const char *key, uint64_t offset)
{
    text_printf(text, ",\"%s\":", key);
    if (offset == UNSHARD_NO_OFFSET)
        text_append_string(text, "null");
    else
        text_append_u64(text, offset);
}

static void write_error(struct text *text, const struct unshard_error *error)
{
    if (error == NULL) {
        text_append_string(text, "null");
        return;
    }
    text_append_string(text, "{");
    write_member(text, "code", error->code != NULL ? error->code : "error");
    text_append_string(text, ",");
    write_member(text, "message", error->message);
    write_offset(text, "offset", error->offset);
    text_printf(text, ",\"errno\":%d}", error->errno_value);
}

static void write_file(struct text *text, const struct unshard_file_report *file)
{
    text_append_string(text, "{");
    write_member(text, "file", file->path);
    text_append_string(text, ",\"bytes\":");
    text_append_u64(text, file->bytes);
    text_printf(text, ",\"state\":\"%s\",", unshard_verdict_name(file->verdict));
    write_member(text, "algorithm", file->algorithm);
    text_append_string(text, ",");
    write_member(text, "origin", file->origin);
    text_append_string(text, ",");
    write_member(text, "expected", file->expected);
    text_append_string(text, ",");
    write_member(text, "actual", file->actual);
    write_offset(text, "bad_offset", file->bad_offset);
    text_append_string(text, ",\"error\":");
    write_error(text, file->error);
    text_append_string(text, "}");
}

static void write_lists(struct text *text, const struct unshard_report *report)
{
    text_append_string(text, ",\"files\":[");
    for (uint32_t i = 0; i < report->file_count; i++) {
        text_append_string(text, i > 0 ? "," : "");
        write_file(text, &report->files[i]);
    }
    text_append_string(text, "],\"problems\":[");
    for (uint32_t i = 0; i < report->problem_count; i++) {
        text_append_string(text, i > 0 ? "," : "");
        write_error(text, &report->problems[i]);
    }
    text_append_string(text, "]");
}

char *unshard_report_json(const struct unshard_report *report, const struct unshard_error *error)
{
    static const char *const outcomes[] = {"good", "bad", "nothing-to-check"};
    struct text text = {0};
    text_append_string(&text, "{\"schema\":1,");
    write_member(&text, "source", report->source);
    text_printf(&text, ",\"result\":\"%s\",\"bytes_checked\":",
                outcomes[error != NULL ? UNSHARD_SOME_BAD : unshard_report_outcome(report)]);
    text_append_u64(&text, report->bytes_checked);
    text_append_string(&text, ",");
    write_member(&text, "manifest", report->manifest);
    text_append_string(&text, ",\"counts\":{");
    for (unsigned i = 0; i < UNSHARD_VERDICT_COUNT; i++)
        text_printf(&text, "%s\"%s\":%u", i > 0 ? "," : "", unshard_verdict_name(i),
                    report->counts[i]);
    text_append_string(&text, "},\"error\":");
    write_error(&text, error);
    write_lists(&text, report);
    text_append_string(&text, "}");
    return text_take(&text);
}
