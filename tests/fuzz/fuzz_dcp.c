/* SPDX-License-Identifier: MIT
 *
 * .metadata of a distributed checkpoint. Of what is accepted no name leaves the directory, no part
 * leaves its tensor and no two places of a file overlap; and its parts, read from a file that is
 * the input as well, either join to whole tensors or are refused. */
#include "tests/fuzz/memory_reader.h"

#include "formats/dcp/dcp_metadata.h"
#include "formats/gather.h"
#include "formats/index_file.h"
#include "formats/tensor_parts.h"

static void check_metadata(const struct dcp_metadata *metadata)
{
    for (uint32_t i = 0; i < metadata->file_count; i++) {
        require(index_file_name_problem(metadata->files[i], strlen(metadata->files[i])) == NULL);
        require(i == 0 || strcmp(metadata->files[i - 1], metadata->files[i]) < 0);
        require(metadata->first_part[i] <= metadata->first_part[i + 1]);
    }
    require(metadata->first_part[metadata->file_count] == metadata->part_count);
    for (size_t i = 0; i < metadata->part_count; i++) {
        const struct dcp_part *part = &metadata->parts[i];
        for (uint32_t d = 0; d < part->tensor->rank; d++)
            require(part->sizes[d] > 0 && part->offsets[d] < part->tensor->shape[d] &&
                    part->sizes[d] <= part->tensor->shape[d] - part->offsets[d]);
        if (i > 0 && part[-1].file == part->file)
            require(part[-1].offset + part[-1].length <= part->offset);
    }
}

/* The parts as if each were in its file as it should be. */
static void join(const struct dcp_metadata *metadata, struct arena *arena)
{
    struct tensor_set set = {0};
    struct unshard_error error = {0};
    set.tensors = arena_alloc_array(arena, metadata->part_count, sizeof *set.tensors);
    require(set.tensors != NULL);
    for (size_t i = 0; i < metadata->part_count; i++) {
        const struct dcp_part *part = &metadata->parts[i];
        struct tensor_part *place = arena_alloc(arena, sizeof *place);
        struct tensor tensor = {.name = part->tensor->name,
                                .name_length = part->tensor->name_length,
                                .rank = part->tensor->rank,
                                .shape = part->sizes,
                                .dtype = part->tensor->dtype,
                                .length = dtype_bits(part->tensor->dtype) / 8};
        require(place != NULL);
        *place = (struct tensor_part){part->offsets, part->tensor->shape};
        tensor.part = place;
        for (uint32_t d = 0; d < tensor.rank; d++)
            if (__builtin_mul_overflow(tensor.length, part->sizes[d], &tensor.length))
                return; /* no archive holds so much */
        set.tensors[set.tensor_count++] = tensor;
    }
    if (tensor_parts_join(&set, 1, "fuzz", arena, &error) != 0) {
        require(error.code != NULL && error.message[0] != '\0');
        return;
    }
    for (size_t i = 0; i < set.tensor_count; i++) {
        const struct gather *gather = set.tensors[i].gather;
        uint64_t sum = 0;
        require(set.tensors[i].part == NULL);
        for (uint32_t b = 0; gather != NULL && b < gather->box_count; b++)
            sum += gather->boxes[b].run * gather_box_run_count(&gather->boxes[b]);
        require(gather == NULL || sum == gather->length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_input input = {data, size};
    struct byte_reader reader = memory_reader(&input);
    struct arena arena = {0};
    struct dcp_metadata metadata;
    struct tensor_set set;
    struct unshard_error error = {0};
    int result = dcp_metadata_parse((const char *)data, size, "fuzz", &arena, &metadata, &error);
    if (result == 0) {
        check_metadata(&metadata);
        join(&metadata, &arena);
        for (uint32_t i = 0; i < metadata.file_count; i++)
            dcp_file_read(&reader, "fuzz", &metadata, i, &arena, &set, &error);
    } else {
        require(error.code != NULL && error.message[0] != '\0');
    }
    arena_free(&arena);
    return 0;
}
