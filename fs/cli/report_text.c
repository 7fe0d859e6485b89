/* SPDX-License-Identifier: MIT */
#include "fs/cli/report_text.h"

#include <string.h>

#define QUOTED_CAPACITY 1100
#define UNVERIFIED_LISTED 20U

static const char *quote(char out[QUOTED_CAPACITY], const char *text)
{
    return unshard_printable(out, QUOTED_CAPACITY, text, strlen(text));
}

void report_show_progress(void *context, const char *path, uint64_t done, uint64_t total)
{
    progress_show(context, path, done, total);
}

static void print_bad_file(FILE *out, const struct unshard_file_report *file)
{
    char quoted[QUOTED_CAPACITY];
    fprintf(out, "%s: ", unshard_verdict_name(file->verdict));
    fprintf(out, "%s\n", quote(quoted, file->error != NULL ? file->error->message : file->path));
    if (file->expected != NULL)
        fprintf(out, "  expected %s %s, from %s\n", file->algorithm, file->expected,
                file->origin != NULL ? quote(quoted, file->origin) : "?");
    if (file->actual != NULL)
        fprintf(out, "  actual   %s %s\n", file->algorithm, file->actual);
}

static bool is_bad(const struct unshard_file_report *file)
{
    return file->verdict != UNSHARD_VERIFIED && file->verdict != UNSHARD_UNVERIFIED;
}

static void print_unverified(FILE *out, const struct unshard_report *report)
{
    char quoted[QUOTED_CAPACITY];
    uint32_t shown = 0, count = report->counts[UNSHARD_UNVERIFIED];
    for (uint32_t i = 0; i < report->file_count && shown < UNVERIFIED_LISTED; i++) {
        if (report->files[i].verdict != UNSHARD_UNVERIFIED)
            continue;
        fprintf(out, "unverified: %s: no digest is known\n", quote(quoted, report->files[i].path));
        shown++;
    }
    if (count > shown)
        fprintf(out, "unverified: ... %u more\n", count - shown);
}

static void print_amount(FILE *out, const struct unshard_report *report, double seconds)
{
    char bytes[UNSHARD_HUMAN_CAPACITY], duration[UNSHARD_HUMAN_CAPACITY],
        rate[UNSHARD_HUMAN_CAPACITY];
    fprintf(out, "%s in %s, %s\n", unshard_human_bytes(bytes, report->bytes_checked),
            unshard_human_duration(duration, seconds),
            unshard_human_rate(rate, seconds > 0 ? (double)report->bytes_checked / seconds : 0));
}

static void print_findings(FILE *out, const struct unshard_report *report)
{
    char quoted[QUOTED_CAPACITY];
    for (uint32_t i = 0; i < report->problem_count; i++)
        fprintf(out, "problem: %s\n", quote(quoted, report->problems[i].message));
    for (uint32_t i = 0; i < report->file_count; i++)
        if (is_bad(&report->files[i]))
            print_bad_file(out, &report->files[i]);
}

void report_print_verified(FILE *out, const struct unshard_report *report, double seconds)
{
    const char *separator = "";
    print_findings(out, report);
    print_unverified(out, report);
    for (unsigned i = 0; i < UNSHARD_VERDICT_COUNT; i++) {
        if (report->counts[i] == 0 && i != UNSHARD_VERIFIED)
            continue;
        fprintf(out, "%s%u %s", separator, report->counts[i], unshard_verdict_name(i));
        separator = ", ";
    }
    if (report->problem_count > 0)
        fprintf(out, ", %u problem%s", report->problem_count,
                report->problem_count == 1 ? "" : "s");
    fputs("; ", out);
    print_amount(out, report, seconds);
}

void report_print_sealed(FILE *out, const struct unshard_report *report, double seconds)
{
    print_findings(out, report);
    if (report->manifest == NULL)
        return;
    fprintf(out, "%s: %u file%s sealed, %u of them checked before; ", report->manifest,
            report->file_count, report->file_count == 1 ? "" : "s",
            report->counts[UNSHARD_VERIFIED]);
    print_amount(out, report, seconds);
}
