/* SPDX-License-Identifier: MIT
 *
 * Text made of the status JSON, besides unshard_status_text of unshard.h. */
#ifndef STATUS_STATUS_TEXT_H
#define STATUS_STATUS_TEXT_H

/* Where the mount stands in one line without a newline, for logs and pipes: state, bytes, rate,
 * number of errors. The caller frees it; NULL when json is not of a known schema or memory is
 * short. Thread-safe, does not block. */
char *status_summary_line(const char *json);

#endif
