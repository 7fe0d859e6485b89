/* SPDX-License-Identifier: MIT
 *
 * A whole file: what is accepted must survive being written and read again. */
#include <stdlib.h>
#include <string.h>

#include "formats/safetensors/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size;
};

static int read_input(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct input *input = context;

    if (offset > input->size || length > input->size - offset)
        abort();
    memcpy(buffer, input->data + offset, length);
    return 0;
}

static void require(int condition)
{
    if (!condition)
        abort();
}

static void compare(const struct tensor_set *a, const struct tensor_set *b)
{
    require(a->tensor_count == b->tensor_count && a->metadata_count == b->metadata_count);
    require((a->metadata == NULL) == (b->metadata == NULL));
    for (size_t i = 0; i < a->tensor_count; i++) {
        const struct tensor *x = &a->tensors[i], *y = &b->tensors[i];

        require(x->name_length == y->name_length && memcmp(x->name, y->name, x->name_length) == 0);
        require(x->dtype == y->dtype && x->rank == y->rank && x->length == y->length);
        require(memcmp(x->shape, y->shape, x->rank * sizeof *x->shape) == 0);
        require(x->offset - a->data_offset == y->offset - b->data_offset);
    }
    for (size_t i = 0; i < a->metadata_count; i++) {
        const struct metadata_entry *x = &a->metadata[i], *y = &b->metadata[i];

        require(x->key_length == y->key_length && memcmp(x->key, y->key, x->key_length) == 0);
        require(x->value_length == y->value_length &&
                memcmp(x->value, y->value, x->value_length) == 0);
    }
}

static void write_and_reread(const struct tensor_set *set, struct arena *arena)
{
    const struct tensor **order = calloc(set->tensor_count + 1, sizeof *order);
    struct tensor_set again = {0};
    struct text header = {0};
    uint64_t bytes = 0;

    require(order != NULL);
    for (size_t i = 0; i < set->tensor_count; i++) {
        order[i] = &set->tensors[i];
        bytes += set->tensors[i].length;
    }
    require(safetensors_write_header(order, set->tensor_count, set->metadata, set->metadata_count,
                                     set->metadata != NULL, 4096, &header, NULL) == 0);
    require(header.length % 4096 == 0);
    require(safetensors_parse(header.data + 8, header.length - 8, header.length + bytes, "again",
                              arena, &again, NULL) == 0);
    compare(set, &again);
    text_free(&header);
    free(order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct byte_reader reader = {.context = &input, .size = size, .read = read_input};
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error = {0};
    int result = safetensors_read(&reader, "fuzz", &arena, &set, &error);

    if (result == 0)
        write_and_reread(&set, &arena);
    else
        require(error.code != NULL && error.message[0] != '\0');
    arena_free(&arena);
    return 0;
}
