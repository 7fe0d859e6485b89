/* SPDX-License-Identifier: MIT
 * A line of .unshard/errors. */
#ifndef STATUS_ERROR_LINE_H
#define STATUS_ERROR_LINE_H

#include "base/text.h"
#include "unshard.h"

/* Appends `TIME component="..." shard="..." code=... message="..."` and a newline; "-" stands for
 * what does not apply. */
void error_line_append(struct text *text, const char *component, const char *file,
                       const struct unshard_error *error);

/* Whether an error is one of this file: messages begin with the path. Pure. */
bool error_names_file(const struct unshard_error *error, const char *path);

#endif
