/* SPDX-License-Identifier: MIT */
#include "base/lazy_array.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Below that a mapping of its own is not worth it: there may be as many arrays as files. */
#define LEAST_MAPPED ((size_t)1 << 20)

void *lazy_array_new(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    if (bytes < LEAST_MAPPED)
        return calloc(count, size);
    void *array = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (array == MAP_FAILED)
        return NULL;
    madvise(array, bytes, MADV_NOHUGEPAGE); /* an element would cost 2 MiB */
    return array;
}

void lazy_array_free(void *array, size_t count, size_t size)
{
    if (array == NULL)
        return;
    if (count * size < LEAST_MAPPED)
        free(array);
    else
        munmap(array, count * size);
}
