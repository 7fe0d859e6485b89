/* SPDX-License-Identifier: MIT */
#include "base/text.h"
#include "verify/report.h"
#include "json/json_write.h"

const char *unshard_verdict_name(enum unshard_verdict verdict)
{
    static const char *const names[UNSHARD_VERDICT_COUNT] = {
        [UNSHARD_VERIFIED] = "verified",     [UNSHARD_UNVERIFIED] = "unverified",
        [UNSHARD_MISMATCH] = "mismatch",     [UNSHARD_MISSING] = "missing",
        [UNSHARD_UNREADABLE] = "unreadable", [UNSHARD_CONTRADICTED] = "contradicted",
    };
    return (unsigned)verdict < UNSHARD_VERDICT_COUNT ? names[verdict] : "unknown";
}

static void write_file(struct text *text, const struct unshard_file_report *file)
{
    text_append_string(text, "{");
    json_member_write(text, "file", file->path);
    text_append_string(text, ",\"bytes\":");
    text_append_u64(text, file->bytes);
    text_printf(text, ",\"state\":\"%s\",", unshard_verdict_name(file->verdict));
    json_member_write(text, "algorithm", file->algorithm);
    text_append_string(text, ",");
    json_member_write(text, "origin", file->origin);
    text_append_string(text, ",");
    json_member_write(text, "expected", file->expected);
    text_append_string(text, ",");
    json_member_write(text, "actual", file->actual);
    text_append_string(text, ",\"bad_offset\":");
    if (file->bad_offset == UNSHARD_NO_OFFSET)
        text_append_string(text, "null");
    else
        text_append_u64(text, file->bad_offset);
    text_append_string(text, ",\"error\":");
    json_error_write(text, file->error);
    text_append_string(text, "}");
}

static void write_lists(struct text *text, const struct unshard_report *report)
{
    text_append_string(text, ",\"files\":[");
    for (uint32_t i = 0; i < report->file_count; i++) {
        text_append_string(text, i > 0 ? "," : "");
        write_file(text, &report->files[i]);
    }
    text_append_string(text, "],");
    json_errors_write(text, "problems", report->problems, report->problem_count);
}

char *unshard_report_json(const struct unshard_report *report, const struct unshard_error *error)
{
    static const char *const outcomes[] = {"good", "bad", "nothing-to-check"};
    struct text text = {0};
    text_append_string(&text, "{\"schema\":1,");
    json_member_write(&text, "source", report->source);
    text_printf(&text, ",\"result\":\"%s\",\"bytes_checked\":",
                outcomes[error != NULL ? UNSHARD_SOME_BAD : unshard_report_outcome(report)]);
    text_append_u64(&text, report->bytes_checked);
    text_append_string(&text, ",");
    json_member_write(&text, "manifest", report->manifest);
    text_append_string(&text, ",\"counts\":{");
    for (unsigned i = 0; i < UNSHARD_VERDICT_COUNT; i++)
        text_printf(&text, "%s\"%s\":%u", i > 0 ? "," : "", unshard_verdict_name(i),
                    report->counts[i]);
    text_append_string(&text, "},\"error\":");
    json_error_write(&text, error);
    write_lists(&text, report);
    text_append_string(&text, "}");
    return text_take(&text);
}
