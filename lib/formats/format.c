/* SPDX-License-Identifier: MIT */
#include "formats/format.h"

#include "formats/dcp/dcp_metadata.h"
#include "formats/gguf/gguf.h"
#include "formats/safetensors/safetensors.h"
#include "formats/torch/torch_file.h"

#include <string.h>

const struct format *const format_table[] = {&safetensors_format, &gguf_format, &torch_format,
                                             &dcp_format};
const size_t format_count = sizeof format_table / sizeof *format_table;

const struct format *format_of_extension(const char *extension)
{
    for (size_t i = 0; i < format_count; i++)
        for (const char *const *known = format_table[i]->extensions; *known != NULL; known++)
            if (strcmp(*known, extension) == 0)
                return format_table[i];
    return NULL;
}

bool format_describes_set(const char *name)
{
    for (size_t i = 0; i < format_count; i++)
        if (format_table[i]->described != NULL &&
            strcmp(format_table[i]->described->name, name) == 0)
            return true;
    return false;
}

const struct format *format_of_name(const char *name)
{
    for (size_t i = 0; i < format_count; i++)
        if (strcmp(format_table[i]->name, name) == 0)
            return format_table[i];
    return NULL;
}
