/* SPDX-License-Identifier: MIT */
#ifndef VERIFY_MANIFEST_FILE_H
#define VERIFY_MANIFEST_FILE_H

#include "base/text.h"
#include "unshard.h"

/* Writes the text to MANIFEST_NAME in a directory: whole under another name, flushed, then renamed.
 * On failure what was there before is still there, and nothing else. source is for messages. */
int manifest_file_write(int directory, const char *source, const struct text *text,
                        struct unshard_error *error);

#endif
