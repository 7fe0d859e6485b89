/* SPDX-License-Identifier: MIT */
#include "formats/format.h"
#include "formats/gguf/gguf_merge.h"

static const char *const extensions[] = {"gguf", NULL};

const struct format gguf_format = {
    .name = "gguf",
    .extensions = extensions,
    .read = gguf_read,
    .is_shard = gguf_is_split,
    .hash_detail = gguf_hash_detail,
    .lay_out = gguf_lay_out,
};
