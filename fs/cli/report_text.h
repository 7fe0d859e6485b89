/* SPDX-License-Identifier: MIT
 *
 * What seal and verify print. */
#ifndef FS_CLI_REPORT_TEXT_H
#define FS_CLI_REPORT_TEXT_H

#include "fs/cli/progress.h"
#include "unshard.h"

/* Progress of hashing, for `unshard_progress`; context is a struct progress_line. */
void report_show_progress(void *context, const char *path, uint64_t done, uint64_t total);

/* Every problem, every bad file with what was expected, files without a known digest (the first
 * ones of many), and a line of totals. */
void report_print_verified(FILE *out, const struct unshard_report *report, double seconds);
/* Every problem and bad file, and a line about the manifest if it was written. */
void report_print_sealed(FILE *out, const struct unshard_report *report, double seconds);

#endif
