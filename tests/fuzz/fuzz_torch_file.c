/* SPDX-License-Identifier: MIT
 *
 * A whole file of torch.save, zip or legacy. Of what is accepted all bytes lie in the file, and
 * gathering them gives what looking up each element by its strides gives. */
#include "tests/fuzz/memory_reader.h"

#include "formats/gather.h"
#include "formats/torch/torch_file.h"
#include "store/gather_read.h"

#define MOST_BYTES (1U << 20)

static int read_window(void *context, uint32_t file, uint64_t offset, void *buffer, size_t length,
                       bool sparse, struct unshard_error *error)
{
    (void)error;
    require(file == 0 && length > 0 && length <= GATHER_WINDOW_BYTES);
    require(sparse || offset % GATHER_ALIGNMENT == 0);
    return memory_read(context, offset, buffer, length);
}

static uint64_t input_size(void *context, uint32_t file)
{
    (void)file;
    return ((const struct memory_input *)context)->size;
}

static void check_elements(const struct memory_input *input, const struct tensor *tensor,
                           const unsigned char *gathered)
{
    uint64_t index[GATHER_MAX_RANK] = {0};
    uint64_t element = dtype_bits(tensor->dtype) < 8 ? 1 : dtype_bits(tensor->dtype) / 8;
    for (uint64_t at = 0; at < tensor->length; at += element) {
        uint64_t from = tensor->gather->boxes[0].source;
        for (uint32_t d = 0; d < tensor->rank; d++)
            from += index[d] * tensor->gather->strides[d];
        require(from + element <= input->size);
        require(memcmp(gathered + at, input->data + from, element) == 0);
        for (uint32_t d = tensor->rank; d-- > 0;) {
            /* Of packed pairs the last dimension counts halves. */
            uint64_t count = tensor->shape[d];
            if (tensor->dtype == DTYPE_F4 && d + 1 == tensor->rank)
                count /= 2;
            if (++index[d] < count)
                break;
            index[d] = 0;
        }
    }
}

static void check_gather(struct memory_input *input, const struct tensor *tensor)
{
    struct gather_source source = {.context = input, .read = read_window, .size = input_size};
    struct gathered_piece piece = {.gather = tensor->gather, .name = "t"};
    struct gathered file = {.pieces = &piece, .count = 1, .size = tensor->length};
    require(tensor->gather->length == tensor->length && tensor->length > 0);
    if (tensor->length > MOST_BYTES)
        return;
    unsigned char *buffer = malloc(tensor->length), *part = malloc(tensor->length);
    require(buffer != NULL && part != NULL);
    require(gather_read(&file, 0, buffer, tensor->length, &source, NULL) == 0);
    check_elements(input, tensor, buffer);
    uint64_t first = tensor->length / 3, length = tensor->length / 2;
    if (length > 0) {
        require(gather_read(&file, first, part, length, &source, NULL) == 0);
        require(memcmp(part, buffer + first, length) == 0);
    }
    free(buffer);
    free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_input input = {data, size};
    struct byte_reader reader = memory_reader(&input);
    struct arena arena = {0};
    struct tensor_set set = {0};
    struct unshard_error error = {0};
    int result = torch_file_read(&reader, "fuzz", &arena, &set, &error);
    for (size_t i = 0; result == 0 && i < set.tensor_count; i++) {
        const struct tensor *tensor = &set.tensors[i];
        if (tensor->gather != NULL)
            check_gather(&input, tensor);
        else
            require(tensor->length == 0 ||
                    (tensor->offset <= size && tensor->length <= size - tensor->offset));
    }
    require(result == 0 || (error.code != NULL && error.message[0] != '\0'));
    arena_free(&arena);
    return 0;
}
