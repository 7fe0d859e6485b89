/* SPDX-License-Identifier: MIT
 *
 * Little-endian numbers at any address. */
#ifndef BASE_LITTLE_ENDIAN_H
#define BASE_LITTLE_ENDIAN_H

#include <stdint.h>

static inline uint16_t load_le16(const void *at)
{
    const unsigned char *bytes = at;
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}
static inline uint32_t load_le32(const void *at)
{
    const unsigned char *bytes = at;
    return (uint32_t)load_le16(bytes) | (uint32_t)load_le16(bytes + 2) << 16;
}
static inline uint64_t load_le64(const void *at)
{
    const unsigned char *bytes = at;
    return (uint64_t)load_le32(bytes) | (uint64_t)load_le32(bytes + 4) << 32;
}

#endif
