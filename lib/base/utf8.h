/* SPDX-License-Identifier: MIT
 *
 * UTF-8 as RFC 3629 defines it. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* The length of the well-formed sequence at the start of length > 0 bytes, or 0 when there is none:
 * overlong forms, surrogates and numbers above U+10FFFF are not well-formed. */
size_t utf8_sequence(const unsigned char *bytes, size_t length);
/* Writes code_point (a Unicode scalar value) into out and returns the number of bytes, 1 to 4. */
size_t utf8_encode(unsigned code_point, unsigned char out[4]);

#endif
