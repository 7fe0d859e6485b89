/* SPDX-License-Identifier: MIT */
#include "formats/format.h"
#include "formats/safetensors/safetensors.h"

static const char *const extensions[] = {"safetensors", "sft", NULL};

const struct format safetensors_format = {
    .name = "safetensors",
    .extensions = extensions,
    .read = safetensors_read,
};
