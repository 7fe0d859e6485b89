/* SPDX-License-Identifier: MIT */
#include "formats/safetensors/safetensors.h"

#include <errno.h>

static const char *const extensions[] = {"safetensors", "sft", NULL};

static int read_laid_out(const char *header, size_t length, uint64_t size, const char *path,
                         struct arena *arena, struct tensor_set *out)
{
    if (length < 8)
        return -EINVAL;
    return safetensors_parse(header + 8, length - 8, size, path, arena, out, NULL);
}

const struct format safetensors_format = {
    .name = "safetensors",
    .extensions = extensions,
    .read = safetensors_read,
    .holds_components = true,
    .find_parts = safetensors_find_parts,
    .lay_out = safetensors_lay_out,
    .read_laid_out = read_laid_out,
};
