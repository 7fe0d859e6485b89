/* SPDX-License-Identifier: MIT */
#include "formats/dcp/dcp_metadata.h"

#include "formats/safetensors/safetensors.h"

/* Found by the .metadata in a directory, not by extension. */
static const char *const no_extensions[] = {NULL};

const struct format dcp_format = {
    .name = "dcp",
    .extensions = no_extensions,
    .shown_as = &safetensors_format,
};
