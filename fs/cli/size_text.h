/* SPDX-License-Identifier: MIT
 *
 * Numbers and words of the command line. Pure functions, thread-safe. */
#ifndef FS_CLI_SIZE_TEXT_H
#define FS_CLI_SIZE_TEXT_H

#include <stdint.h>

/* Parses "65536", "64K", "2M", "2MiB", "1G", "1T" (powers of 1024, letters of either case). 0,
 * -EINVAL for anything else, -ERANGE when it does not fit. */
int size_parse(const char *text, uint64_t *out);
/* Parses a plain decimal number. 0, -EINVAL or -ERANGE. */
int number_parse(const char *text, uint64_t *out);
/* How many single-character edits (insert, delete, replace) lead from a to b; at most 63 characters
 * of each are looked at. */
unsigned edit_distance(const char *a, const char *b);

#endif
