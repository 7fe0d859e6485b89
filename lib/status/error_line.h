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

#endif
