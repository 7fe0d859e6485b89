/* SPDX-License-Identifier: MIT */
#include "formats/format.h"

#include "formats/gguf.h"
#include "formats/gguf_merge.h"
#include "formats/safetensors.h"

#include <string.h>

static const char *const safetensors_extensions[] = {"safetensors", "sft", NULL};
static const char *const gguf_extensions[] = {"gguf", NULL};

static const struct format formats[] = {
    {.name = "safetensors", .extensions = safetensors_extensions, .read = safetensors_read},
    {.name = "gguf", .extensions = gguf_extensions, .read = gguf_read, .lay_out = gguf_lay_out},
};

const struct format *format_of_extension(const char *extension)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        for (const char *const *known = formats[i].extensions; *known != NULL; known++)
            if (strcmp(*known, extension) == 0)
                return &formats[i];
    return NULL;
}

const struct format *format_of_name(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}
