/* SPDX-License-Identifier: MIT
 * What `unshard run` says of its mounts, beside the command that runs and after it. */
#ifndef FS_CLI_RUN_REPORT_H
#define FS_CLI_RUN_REPORT_H

#include <stdbool.h>

struct run_report {
    const char *const *paths; /* of the mounts */
    unsigned count;
};

/* Starts a process that shows on standard error how far loading has come, until all is loaded or
 * this process, or the program that takes its place, has ended. It is none of its children. Does
 * not fail: without it nothing is shown. Only with a single thread. */
void run_report_start_progress(const struct run_report *report);

/* Writes to standard error what was loaded: a line for each mount, or all as one line of JSON.
 * Blocks for some seconds at most. */
void run_report_summary(const struct run_report *report, bool json);

#endif
