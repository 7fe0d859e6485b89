/* SPDX-License-Identifier: MIT
 *
 * The formats of weights that can be merged. A new one is a file with its reader and a line in the
 * table of format.c. */
#ifndef FORMATS_FORMAT_H
#define FORMATS_FORMAT_H

#include "formats/tensor_set.h"
#include "unshard.h"

struct format {
    const char *name;
    const char *const *extensions; /* without the dot, NULL-terminated */
    /* Reads what tensors a file holds; contract of safetensors_read. On -EIO with the code
     * "truncated" (the file ends before its data does) *out is filled all the same. */
    int (*read)(const struct byte_reader *reader, const char *path, struct arena *arena,
                struct tensor_set *out, struct unshard_error *error);
};

/* The format whose files have this extension, or NULL. Exact, case-sensitive. Thread-safe. */
const struct format *format_of_extension(const char *extension);

/* The format called `name` (format.name), or NULL. Thread-safe. */
const struct format *format_of_name(const char *name);

#endif
