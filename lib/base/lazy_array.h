/* SPDX-License-Identifier: MIT
 *
 * Arrays that may be very long and of which little is used: memory is taken when an element is
 * first written to. */
#ifndef BASE_LAZY_ARRAY_H
#define BASE_LAZY_ARRAY_H

#include <stddef.h>

/* count elements of `size` bytes, all zero; NULL when there is no address space for them. To be
 * freed with lazy_array_free and the same numbers. */
void *lazy_array_new(size_t count, size_t size);
/* NULL is allowed. */
void lazy_array_free(void *array, size_t count, size_t size);

#endif
