/* SPDX-License-Identifier: MIT
 *
 * The GGUF file format, versions 2 and 3, little-endian, see formats/README.md 6.1. */
#ifndef FORMATS_GGUF_GGUF_H
#define FORMATS_GGUF_GGUF_H

#include "base/xxh3.h"
#include "formats/format.h"
#include "unshard.h"

#include <stdbool.h>

#define GGUF_MAX_HEADER (UINT64_C(256) << 20)
#define GGUF_MAX_STRING (UINT64_C(1) << 30)
#define GGUF_MAX_ELEMENTS (UINT64_C(1) << 30)
#define GGUF_MAX_TENSORS (UINT64_C(1) << 20)
#define GGUF_MAX_DIMENSIONS 4
#define GGUF_NAME_CAPACITY 64 /* of a tensor's name, with a terminator */
#define GGUF_DEFAULT_ALIGNMENT UINT64_C(32)
#define GGUF_MAX_ALIGNMENT (UINT64_C(1) << 20)

extern const struct format gguf_format;

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

/* A key and its value, both checked: strings and arrays end within `value`. */
struct gguf_pair {
    const char *key; /* terminated */
    uint32_t key_length;
    enum gguf_type type; /* of the value, of the elements of an array */
    bool is_array;
    uint64_t count;             /* elements of an array, else 1 */
    const unsigned char *value; /* the elements as they stand in the file */
    uint64_t value_length;
};

/* What a GGUF file says beside its tensors; tensor_set.detail of a set that gguf_read made. */
struct gguf_header {
    uint32_t version;
    uint64_t alignment; /* of the data, a power of two */
    const struct gguf_pair *pairs;
    size_t pair_count;
    const uint32_t *types; /* of each tensor: its number, known to ggml_type_of */
};

/* Bytes of one element of this type; 0 for strings and arrays. */
unsigned gguf_type_size(enum gguf_type type);

/* Reads and checks the header of the file behind `reader`; contract of format.read. Tensors
 * come in file order, which is data order; their shapes as in the file: the dimension that changes
 * fastest first. Files of the other byte order are refused. */
int gguf_read(const struct byte_reader *reader, const char *path, struct arena *arena,
              struct tensor_set *out, struct unshard_error *error);

/* See format.hash_detail. */
void gguf_hash_detail(const struct tensor_set *set, XXH3_state_t *state);

/* The pair called `key`, or NULL. */
const struct gguf_pair *gguf_find(const struct gguf_header *header, const char *key);

#endif
