/* SPDX-License-Identifier: MIT
 *
 * The formats of weights that can be merged. A new one is a file with its reader and a line in the
 * table of format.c. */
#ifndef FORMATS_FORMAT_H
#define FORMATS_FORMAT_H

#include "formats/file_layout.h"
#include "formats/tensor_set.h"
#include "unshard.h"

struct format {
    const char *name;
    const char *const *extensions; /* without the dot, NULL-terminated */
    /* Reads what tensors a file holds; contract of safetensors_read. On -EIO with the code
     * "truncated" (the file ends before its data does) *out is filled all the same. */
    int (*read)(const struct byte_reader *reader, const char *path, struct arena *arena,
                struct tensor_set *out, struct unshard_error *error);
    /* Lays the tensors of several files out as one file of this format; NULL: merged files are
     * safetensors, which the planner lays out. Pure. The sets were made by `read`, in the order of
     * the files; no two tensors have one name; `component` is for messages. On success *out is to
     * be freed with file_layout_free. Errors: the files are no set, or memory. */
    int (*lay_out)(const struct tensor_set *sets, size_t set_count, const char *component,
                   struct file_layout *out, struct unshard_error *error);
};

/* The format whose files have this extension, or NULL. Exact, case-sensitive. Thread-safe. */
const struct format *format_of_extension(const char *extension);

/* The format called `name` (format.name), or NULL. Thread-safe. */
const struct format *format_of_name(const char *name);

#endif
