/* SPDX-License-Identifier: MIT
 *
 * Element types of GGUF tensors (formats/README.md 6.2). Elements come in blocks: a row of a tensor
 * is a whole number of blocks, each of a fixed number of bytes. */
#ifndef FORMATS_GGUF_GGML_TYPE_H
#define FORMATS_GGUF_GGML_TYPE_H

#include <stdint.h>

struct ggml_type {
    const char *name;        /* as gguf-py spells it: "F32", "Q4_K" */
    uint16_t block_elements; /* 1 for plain types */
    uint16_t block_bytes;
};

/* The type with this number in a file, or NULL: unknown, or one that was removed again. */
const struct ggml_type *ggml_type_of(uint32_t number);

#endif
