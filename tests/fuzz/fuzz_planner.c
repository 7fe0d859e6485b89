/* SPDX-License-Identifier: MIT
 *
 * Bytes become some shards of tensors: their merged view must be a valid file that maps every
 * tensor to its bytes. Byte 0 holds shards and order; then four bytes a tensor: name, type,
 * elements, where. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/property/merged_view_check.h"

#define MAX_SETS 4
#define MAX_TENSORS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct shards {
    struct tensor_set sets[MAX_SETS];
    struct tensor tensors[MAX_SETS][MAX_TENSORS];
    uint64_t shapes[MAX_SETS][MAX_TENSORS];
    char names[MAX_SETS][MAX_TENSORS][4];
    struct metadata_entry metadata[MAX_SETS];
    uint64_t ends[MAX_SETS];
};

static void add_tensor(struct shards *shards, uint32_t file, const uint8_t bytes[4])
{
    struct tensor_set *set = &shards->sets[file];
    size_t number = set->tensor_count;
    struct tensor *tensor = &shards->tensors[file][number];
    enum dtype dtype = (enum dtype)(bytes[1] % DTYPE_COUNT);

    if (number == MAX_TENSORS)
        return;
    shards->names[file][number][0] = (char)(bytes[0] % 128);
    shards->names[file][number][1] = (char)('a' + bytes[3] % 8);
    shards->shapes[file][number] = dtype_bits(dtype) < 8 ? bytes[2] * 4u : bytes[2];
    *tensor = (struct tensor){.name = shards->names[file][number],
                              .name_length = 2,
                              .rank = 1,
                              .shape = &shards->shapes[file][number],
                              .file = file,
                              .dtype = dtype,
                              .offset = shards->ends[file],
                              .length = shards->shapes[file][number] * dtype_bits(dtype) / 8};
    shards->ends[file] += tensor->length;
    set->tensor_count++;
}

static void fill(struct shards *shards, size_t set_count, const uint8_t *data, size_t size)
{
    static const char *const values[] = {"pt", "np", ""};

    for (size_t i = 0; i < set_count; i++) {
        shards->sets[i].tensors = shards->tensors[i];
        shards->ends[i] = size > i ? data[i] * 37u : 0;
        if (size > i && data[i] % 3 == 0) {
            shards->metadata[i] = (struct metadata_entry){"format", values[data[i] % 2], 6, 2};
            shards->sets[i].metadata = &shards->metadata[i];
            shards->sets[i].metadata_count = data[i] % 2;
        }
    }
    for (; size >= 4; size -= 4, data += 4)
        add_tensor(shards, (uint32_t)(data[3] / 8 % set_count), data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shards *shards;
    struct merged_view view;
    struct unshard_error error = {0};
    struct planner_input input = {.component = "fuzz", .format = format_of_name("safetensors")};
    const char *problem = NULL;

    if (size == 0)
        return 0;
    shards = calloc(1, sizeof *shards);
    if (shards == NULL)
        return 0;
    input.sets = shards->sets;
    input.set_count = data[0] % MAX_SETS + 1;
    input.order = data[0] & 0x80 ? UNSHARD_ORDER_CANONICAL : UNSHARD_ORDER_SHARD;
    fill(shards, input.set_count, data + 1, size - 1);
    if (planner_merge(&input, &view, &error) == 0) {
        problem = check_merged_view(&view);
        merged_view_free(&view);
    } else if (error.code == NULL || strcmp(error.code, "duplicate-tensor") != 0) {
        problem = error.message;
    }
    if (problem != NULL) {
        fprintf(stderr, "%s\n", problem);
        abort();
    }
    free(shards);
    return 0;
}
