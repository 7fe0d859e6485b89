/* SPDX-License-Identifier: MIT
 *
 * Gathered tensors against a model: every element looked up by its indexes. Random shapes, strides
 * and parts; any range of a gathered file must read as the same range of the model. */
#include "formats/gather.h"
#include "formats/tensor_parts.h"
#include "store/gather_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property/random.h"

#define FILE_BYTES 3000000U /* several windows */
#define FILES 3
#define ROUNDS 400

static unsigned char content[FILES][FILE_BYTES];

static void fill_files(struct random_state *random)
{
    for (size_t i = 0; i < FILES; i++)
        for (size_t k = 0; k + 8 <= FILE_BYTES; k += 8) {
            uint64_t word = random_next(random);
            memcpy(content[i] + k, &word, sizeof word);
        }
}

/* ---- the source --------------------------------------------------------------------------------
 */

static int read_file(void *context, uint32_t file, uint64_t offset, void *buffer, size_t length,
                     bool sparse, struct unshard_error *error)
{
    (void)context;
    (void)error;
    assert_true(file < FILES && offset <= FILE_BYTES && length <= FILE_BYTES - offset);
    assert_true(length > 0 && length <= GATHER_WINDOW_BYTES);
    assert_true((uintptr_t)buffer % GATHER_ALIGNMENT == 0);
    assert_true(sparse || offset % GATHER_ALIGNMENT == 0);
    memcpy(buffer, content[file] + offset, length);
    return 0;
}

static uint64_t file_size(void *context, uint32_t file)
{
    (void)context;
    (void)file;
    return FILE_BYTES;
}

static void advise(void *context, uint32_t file, uint64_t offset, uint64_t length)
{
    (void)context;
    assert_true(file < FILES && offset + length <= FILE_BYTES);
}

static const struct gather_source source = {.read = read_file, .size = file_size, .advise = advise};

/* ---- the model ---------------------------------------------------------------------------------
 */

/* Writes what the grid says into `out`, element by element. */
static void model_grid(const struct gather_grid *grid, unsigned char *out)
{
    uint64_t index[GATHER_MAX_RANK] = {0}, count = 1;
    for (uint32_t d = 0; d < grid->rank; d++)
        count *= grid->shape[d];
    for (uint64_t n = 0; n < count; n++) {
        uint64_t from = grid->source, to = grid->target;
        for (uint32_t d = 0; d < grid->rank; d++) {
            from += index[d] * grid->source_strides[d];
            to += index[d] * grid->target_strides[d];
        }
        memcpy(out + to, content[grid->file] + from, grid->element_size);
        for (uint32_t d = grid->rank; d-- > 0;) {
            if (++index[d] < grid->shape[d])
                break;
            index[d] = 0;
        }
    }
}

static void check_ranges(struct random_state *random, const struct gathered *file,
                         const unsigned char *expected)
{
    unsigned char *buffer = malloc(file->size + 1);
    assert_non_null(buffer);
    for (int i = 0; i < 8; i++) {
        uint64_t offset = i == 0 ? 0 : random_below(random, file->size);
        uint64_t length = i == 0 ? file->size : 1 + random_below(random, file->size - offset);
        buffer[length] = 0xa5;
        assert_int_equal(gather_read(file, offset, buffer, length, &source, NULL), 0);
        assert_memory_equal(buffer, expected + offset, length);
        assert_int_equal(buffer[length], 0xa5);
    }
    free(buffer);
}

/* The runs, where the tensor is cut into such, tell the same. */
static void check_runs(const struct gather *gather, const unsigned char *expected)
{
    struct gather_run *runs;
    size_t count;
    uint64_t end = 0;
    if (!gather_runs(gather, &runs, &count))
        return;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(runs[i].target, end);
        assert_memory_equal(expected + end, content[runs[i].file] + runs[i].source, runs[i].length);
        end += runs[i].length;
    }
    assert_int_equal(end, gather->length);
    free(runs);
}

/* ---- strided tensors ---------------------------------------------------------------------------
 */

/* Random shape and strides such that all elements lie in the file. */
static void random_grid(struct random_state *random, struct gather_grid *grid, uint64_t *shape,
                        uint64_t *from, uint64_t *to)
{
    static const uint64_t sizes[] = {1, 2, 4, 8};
    uint64_t reach = 0, stride;
    *grid = (struct gather_grid){.file = (uint32_t)random_below(random, FILES),
                                 .rank = (uint32_t)random_below(random, 6),
                                 .element_size = sizes[random_below(random, 4)],
                                 .shape = shape,
                                 .source_strides = from,
                                 .target_strides = to};
    reach = grid->element_size;
    for (uint32_t d = 0; d < grid->rank; d++) {
        shape[d] = 1 + random_below(random, random_below(random, 4) == 0 ? 60 : 7);
        uint64_t room = shape[d] > 1 ? (FILE_BYTES - reach) / (shape[d] - 1) : FILE_BYTES;
        stride = random_below(random, room < 1 ? 1 : room);
        if (random_below(random, 2) == 0) /* a plausible one */
            stride = grid->element_size * (1 + random_below(random, 12));
        if (shape[d] > 1 && stride > room)
            stride = 0;
        from[d] = stride;
        reach += (shape[d] - 1) * stride;
    }
    grid->source = random_below(random, FILE_BYTES - reach + 1);
    stride = grid->element_size;
    for (uint32_t d = grid->rank; d-- > 0;) {
        to[d] = stride;
        stride *= shape[d];
    }
}

static void test_strided(void **state)
{
    (void)state;
    struct random_state random = {random_seed() + 31};
    fill_files(&random);
    for (int round = 0; round < ROUNDS; round++) {
        struct arena arena = {0};
        struct gather_grid grid;
        uint64_t shape[8], from[8], to[8];
        struct gather_box box;
        random_grid(&random, &grid, shape, from, to);
        uint64_t bytes = grid.element_size;
        for (uint32_t d = 0; d < grid.rank; d++)
            bytes *= shape[d];
        if (bytes > 1 << 20)
            continue;
        assert_int_equal(gather_box_make(&grid, &arena, &box), 0);
        assert_int_equal(box.run * gather_box_run_count(&box), bytes);
        unsigned char *expected = malloc(bytes);
        assert_non_null(expected);
        model_grid(&grid, expected);
        struct gather gather = {.boxes = &box, .box_count = 1, .length = bytes};
        struct gathered_piece piece = {.gather = &gather, .name = "t"};
        struct gathered file = {.pieces = &piece, .count = 1, .size = bytes};
        check_ranges(&random, &file, expected);
        check_runs(&gather, expected);
        free(expected);
        arena_free(&arena);
    }
}

/* ---- parts -------------------------------------------------------------------------------------
 */

/* Cuts the box [begin, end) along a random dimension until `depth` cuts are made, and makes a part
 * of each piece, at some place in some file. */
static void cut(struct random_state *random, struct arena *arena, const struct tensor *whole,
                const uint64_t *begin, const uint64_t *end, int depth, struct tensor *parts,
                size_t *count)
{
    uint32_t d = whole->rank > 0 ? (uint32_t)random_below(random, whole->rank) : 0;
    if (depth > 0 && whole->rank > 0 && end[d] - begin[d] > 1) {
        uint64_t middle[4];
        uint64_t at = begin[d] + 1 + random_below(random, end[d] - begin[d] - 1);
        memcpy(middle, end, sizeof middle);
        middle[d] = at;
        cut(random, arena, whole, begin, middle, depth - 1, parts, count);
        memcpy(middle, begin, sizeof middle);
        middle[d] = at;
        cut(random, arena, whole, middle, end, depth - 1, parts, count);
        return;
    }
    struct tensor_part *part = arena_alloc(arena, sizeof *part);
    uint64_t *offsets = arena_alloc(arena, 4 * sizeof *offsets);
    uint64_t *shape = arena_alloc(arena, 4 * sizeof *shape);
    struct tensor *tensor = &parts[(*count)++];
    *tensor = *whole;
    tensor->length = dtype_bits(whole->dtype) / 8;
    for (uint32_t i = 0; i < whole->rank; i++) {
        offsets[i] = begin[i];
        shape[i] = end[i] - begin[i];
        tensor->length *= shape[i];
    }
    *part = (struct tensor_part){.offsets = offsets, .whole = whole->shape};
    tensor->part = part;
    tensor->shape = shape;
    tensor->file = (uint32_t)random_below(random, FILES);
    tensor->offset = random_below(random, FILE_BYTES - tensor->length + 1);
}

static void model_parts(const struct tensor *whole, const struct tensor *parts, size_t count,
                        unsigned char *out)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t from[4], to[4], packed = dtype_bits(whole->dtype) / 8, stride = packed;
        struct gather_grid grid = {.file = parts[i].file,
                                   .rank = whole->rank,
                                   .source = parts[i].offset,
                                   .element_size = packed,
                                   .shape = parts[i].shape,
                                   .source_strides = from,
                                   .target_strides = to};
        for (uint32_t d = whole->rank; d-- > 0;) {
            from[d] = packed;
            to[d] = stride;
            grid.target += parts[i].part->offsets[d] * stride;
            packed *= parts[i].shape[d];
            stride *= whole->shape[d];
        }
        model_grid(&grid, out);
    }
}

static void test_parts(void **state)
{
    (void)state;
    struct random_state random = {random_seed() + 32};
    fill_files(&random);
    for (int round = 0; round < ROUNDS; round++) {
        struct arena arena = {0};
        uint64_t zero[4] = {0}, shape[4] = {0};
        struct tensor whole = {.name = "t",
                               .name_length = 1,
                               .rank = (uint32_t)random_below(&random, 4),
                               .shape = shape,
                               .dtype = random_below(&random, 2) ? DTYPE_F32 : DTYPE_U8};
        struct tensor parts[64];
        size_t count = 0;
        for (uint32_t d = 0; d < whole.rank; d++)
            shape[d] = 1 + random_below(&random, 30);
        cut(&random, &arena, &whole, zero, shape, (int)random_below(&random, 5), parts, &count);
        struct tensor_set set = {.tensors = parts, .tensor_count = count};
        struct unshard_error error;
        assert_int_equal(tensor_parts_join(&set, 1, "c", &arena, &error), 0);
        assert_int_equal(set.tensor_count, 1);
        const struct tensor *joined = &set.tensors[0];
        unsigned char *expected = malloc(joined->length);
        assert_non_null(expected);
        model_parts(&whole, parts, count, expected);
        if (joined->gather == NULL) {
            assert_memory_equal(content[joined->file] + joined->offset, expected, joined->length);
        } else {
            struct gathered_piece piece = {.gather = joined->gather, .name = "t"};
            struct gathered file = {.pieces = &piece, .count = 1, .size = joined->length};
            check_ranges(&random, &file, expected);
            check_runs(joined->gather, expected);
        }
        free(expected);
        arena_free(&arena);
    }
}

/* Without one of the parts, or with one moved onto another, it is refused. */
static void test_parts_that_do_not_cover(void **state)
{
    (void)state;
    struct random_state random = {random_seed() + 33};
    int refused = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct arena arena = {0};
        uint64_t zero[4] = {0}, shape[4] = {9, 8, 7, 0};
        struct tensor whole = {
            .name = "t", .name_length = 1, .rank = 3, .shape = shape, .dtype = DTYPE_U8};
        struct tensor parts[64];
        size_t count = 0;
        cut(&random, &arena, &whole, zero, shape, 3, parts, &count);
        size_t victim = random_below(&random, count);
        uint64_t *offsets = (uint64_t *)parts[victim].part->offsets;
        uint32_t d = (uint32_t)random_below(&random, 3);
        if (round % 2 == 0)
            parts[victim] = parts[--count];
        else if (offsets[d] > 0)
            offsets[d]--;
        else if (offsets[d] + parts[victim].shape[d] < shape[d])
            offsets[d]++;
        else
            count = 0;
        struct tensor_set set = {.tensors = parts, .tensor_count = count};
        struct unshard_error error = {0};
        if (count > 0) {
            assert_int_not_equal(tensor_parts_join(&set, 1, "c", &arena, &error), 0);
            assert_string_equal(error.code, "malformed-parts");
            refused++;
        }
        arena_free(&arena);
    }
    assert_true(refused > ROUNDS / 2);
}

/* Several tensors in one gathered file, large ones with small ones between them. */
static void test_pieces(void **state)
{
    (void)state;
    struct random_state random = {random_seed() + 34};
    fill_files(&random);
    struct arena arena = {0};
    struct gather gathers[40];
    struct gather_box boxes[40];
    struct gathered_piece pieces[40];
    struct gathered file = {.pieces = pieces};
    unsigned char *expected = malloc(64U << 20);
    assert_non_null(expected);
    while (file.count < 40) {
        struct gather_grid grid;
        uint64_t shape[8], from[8], to[8], bytes;
        random_grid(&random, &grid, shape, from, to);
        bytes = grid.element_size;
        for (uint32_t d = 0; d < grid.rank; d++)
            bytes *= shape[d];
        if (bytes > 1 << 20)
            continue;
        assert_int_equal(gather_box_make(&grid, &arena, &boxes[file.count]), 0);
        model_grid(&grid, expected + file.size);
        gathers[file.count] =
            (struct gather){.boxes = &boxes[file.count], .box_count = 1, .length = bytes};
        pieces[file.count] = (struct gathered_piece){
            .gather = &gathers[file.count], .offset = file.size, .name = "t"};
        file.size += bytes;
        file.count++;
    }
    for (int i = 0; i < 20; i++)
        check_ranges(&random, &file, expected);
    const struct gathered *copy = gathered_copy(&file, &arena);
    assert_non_null(copy);
    check_ranges(&random, copy, expected);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < copy->source_count; i++)
        sum += copy->sources[i].bytes;
    assert_int_equal(sum, copy->size);
    free(expected);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strided),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parts_that_do_not_cover),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
