/* SPDX-License-Identifier: MIT
 *
 * The input of a fuzz target as a file; whoever reads what is not there is wrong. */
#ifndef FUZZ_MEMORY_READER_H
#define FUZZ_MEMORY_READER_H

#include "formats/tensor_set.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory_input {
    const uint8_t *data;
    size_t size;
};

static inline void require(int condition)
{
    if (!condition)
        abort();
}

static inline int memory_read(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct memory_input *input = context;
    require(offset <= input->size && length <= input->size - offset);
    memcpy(buffer, input->data + offset, length);
    return 0;
}

static inline struct byte_reader memory_reader(struct memory_input *input)
{
    return (struct byte_reader){.context = input, .size = input->size, .read = memory_read};
}

#endif
