/* SPDX-License-Identifier: MIT */
#include "formats/format.h"

#include "formats/gguf/gguf.h"
#include "formats/gguf/gguf_merge.h"
#include "formats/safetensors/safetensors.h"
#include "formats/torch/torch_file.h"

#include <string.h>

static const char *const safetensors_extensions[] = {"safetensors", "sft", NULL};
static const char *const gguf_extensions[] = {"gguf", NULL};
static const char *const no_extensions[] = {NULL};
static const char *const torch_extensions[] = {"bin", "pt", "pth", NULL};

const struct format format_table[] = {
    {.name = "safetensors", .extensions = safetensors_extensions, .read = safetensors_read},
    {.name = "gguf",
     .extensions = gguf_extensions,
     .read = gguf_read,
     .lay_out = gguf_lay_out,
     .is_shard = gguf_is_split,
     .hash_detail = gguf_hash_detail},
    {.name = "torch",
     .extensions = torch_extensions,
     .read = torch_file_read,
     .shown_extension = "safetensors",
     .claim = torch_file_claim,
     .pickle = true},
    /* Directories of torch.distributed.checkpoint: found by their .metadata, not by extension. */
    {.name = "dcp", .extensions = no_extensions, .pickle = true},
};
const size_t format_count = sizeof format_table / sizeof *format_table;

const struct format *format_of_extension(const char *extension)
{
    for (size_t i = 0; i < format_count; i++)
        for (const char *const *known = format_table[i].extensions; *known != NULL; known++)
            if (strcmp(*known, extension) == 0)
                return &format_table[i];
    return NULL;
}

const struct format *format_of_name(const char *name)
{
    for (size_t i = 0; i < format_count; i++)
        if (strcmp(format_table[i].name, name) == 0)
            return &format_table[i];
    return NULL;
}
