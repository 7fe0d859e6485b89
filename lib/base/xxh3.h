/* SPDX-License-Identifier: MIT
 *
 * xxHash, with XXH3 for the vector unit that the processor has: the plain functions of the library
 * are compiled for the oldest one (four times slower with AVX-512). */
#ifndef BASE_XXH3_H
#define BASE_XXH3_H

#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#endif

#endif
