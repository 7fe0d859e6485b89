/* SPDX-License-Identifier: MIT
 *
 * A whole file: what is accepted is laid out as the only split of its model, where its keys allow
 * that, and must then be accepted again with the same tensors. */
#include <stdlib.h>
#include <string.h>

#include "formats/gguf/gguf_merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes, and zeros after them up to `size`. */
struct input {
    const uint8_t *data;
    uint64_t length, size;
};

static int read_input(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct input *input = context;

    if (offset > input->size || length > input->size - offset)
        abort();
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)buffer)[i] =
            (uint8_t)(offset + i < input->length ? input->data[offset + i] : 0);
    return 0;
}

static void require(int condition)
{
    if (!condition)
        abort();
}

static uint64_t elements(const struct tensor *tensor)
{
    uint64_t count = 1;

    for (uint32_t i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

static void compare(const struct file_layout *layout, const struct tensor_set *again)
{
    uint64_t offset = layout->header.length;

    require(again->tensor_count == layout->tensor_count);
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct tensor *a = layout->tensors[i], *b = &again->tensors[i];

        require(a->name_length == b->name_length && memcmp(a->name, b->name, a->name_length) == 0);
        require(a->type_name == b->type_name && a->length == b->length);
        require(elements(a) == elements(b) && b->offset == offset);
        offset += a->length + layout->padding[i];
    }
}

static void merge_and_reread(const struct tensor_set *set, struct arena *arena)
{
    struct file_layout layout;
    struct tensor_set again = {0};
    struct unshard_error error = {0};

    if (gguf_lay_out(set, 1, UNSHARD_ORDER_SHARD, "fuzz", &layout, &error) != 0) {
        require(error.code != NULL && error.message[0] != '\0');
        return;
    }
    struct input input = {(const uint8_t *)layout.header.data, layout.header.length,
                          layout.header.length};
    for (size_t i = 0; i < layout.tensor_count; i++)
        input.size += layout.tensors[i]->length + layout.padding[i];
    struct byte_reader reader = {.context = &input, .size = input.size, .read = read_input};
    require(gguf_read(&reader, "again", arena, &again, &error) == 0);
    compare(&layout, &again);
    file_layout_free(&layout);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size, size};
    struct byte_reader reader = {.context = &input, .size = size, .read = read_input};
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error = {0};

    if (gguf_read(&reader, "fuzz", &arena, &set, &error) == 0)
        merge_and_reread(&set, &arena);
    else
        require(error.code != NULL && error.message[0] != '\0');
    arena_free(&arena);
    return 0;
}
