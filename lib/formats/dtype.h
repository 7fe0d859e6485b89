/* Element types of safetensors, see formats/README.md 1.5. */
#ifndef FORMATS_DTYPE_H
#define FORMATS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the reference's enum order, which decides the canonical layout (descending). */
enum dtype {
    DTYPE_BOOL,
    DTYPE_F4,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_F8_E8M0,
    DTYPE_F8_E4M3FNUZ,
    DTYPE_F8_E5M2FNUZ,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_C64,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_COUNT
};

const char *dtype_name(enum dtype dtype);
/* Bits of one element: 4, 6, 8, 16, 32 or 64. */
unsigned dtype_bits(enum dtype dtype);
/* What the start of a tensor's data must be a multiple of, in bytes: the element size, 1 below a
 * byte. */
unsigned dtype_alignment(enum dtype dtype);
/* False when there is no such type. Exact, case-sensitive. */
bool dtype_parse(const char *name, size_t length, enum dtype *out);

#endif
