/* SPDX-License-Identifier: MIT */
#include "formats/torch/torch_file.h"

#include "formats/safetensors/safetensors.h"

#include <stdio.h>
#include <string.h>

static bool begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

enum format_claim torch_file_claim(const char *stem, const char *extension, char *shown_stem,
                                   size_t capacity)
{
    static const char torch_model[] = "pytorch_model", diffusers[] = "diffusion_pytorch_model",
                      open_clip[] = "open_clip_pytorch_model";
    bool bin = strcmp(extension, "bin") == 0;
    int length;
    enum format_claim claim = FORMAT_CLAIM_WEIGHTS;
    if (begins_with(stem, torch_model))
        length = snprintf(shown_stem, capacity, "model%s", stem + sizeof torch_model - 1);
    else if (begins_with(stem, open_clip))
        length = snprintf(shown_stem, capacity, "open_clip_model%s", stem + sizeof open_clip - 1);
    else {
        length = snprintf(shown_stem, capacity, "%s", stem);
        if (bin && !begins_with(stem, diffusers))
            claim = FORMAT_CLAIM_NONE;
    }
    if (!bin)
        claim = FORMAT_CLAIM_PERHAPS;
    return length > 0 && (size_t)length < capacity ? claim : FORMAT_CLAIM_NONE;
}

static const char *const extensions[] = {"bin", "pt", "pth", NULL};

const struct format torch_format = {
    .name = "torch",
    .extensions = extensions,
    .read = torch_file_read,
    .shown_as = &safetensors_format,
    .claim = torch_file_claim,
};
