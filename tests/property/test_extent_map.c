/* SPDX-License-Identifier: MIT
 *
 * Random layouts against a model that puts all bytes together in memory: every read must give the
 * model's bytes, and images_of must be the exact inverse of the mapping. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "property/random.h"
#include "view/extent_map.h"

#define SOURCES 5
#define SOURCE_SIZE ((size_t)9000)
#define LAYOUTS 300

/* What the view must be: its bytes, and where each of them comes from. */
struct model {
    unsigned char *bytes;
    uint32_t *source;
    uint64_t *source_offset;
    size_t size, capacity;
    size_t boundaries[8192];
    size_t boundary_count;
};

static unsigned char source_bytes[SOURCES][SOURCE_SIZE];
static uint64_t current_seed;

#define check(condition)                                                                          \
    do {                                                                                          \
        if (!(condition))                                                                         \
            fail_msg("%s: UNSHARD_TEST_SEED=%llu", #condition, (unsigned long long)current_seed); \
    } while (0)

static void model_append(struct model *model, uint32_t source, uint64_t offset, const void *bytes,
                         size_t length)
{
    if (model->size + length > model->capacity) {
        model->capacity = (model->size + length) * 2;
        model->bytes = realloc(model->bytes, model->capacity);
        model->source = realloc(model->source, model->capacity * sizeof *model->source);
        model->source_offset =
            realloc(model->source_offset, model->capacity * sizeof *model->source_offset);
        check(model->bytes && model->source && model->source_offset);
    }
    for (size_t i = 0; i < length; i++) {
        model->bytes[model->size + i] = ((const unsigned char *)bytes)[i];
        model->source[model->size + i] = source;
        model->source_offset[model->size + i] = offset + i;
    }
    model->size += length;
    if (model->boundary_count < 8192)
        model->boundaries[model->boundary_count++] = model->size;
}

static void model_free(struct model *model)
{
    free(model->bytes);
    free(model->source);
    free(model->source_offset);
}

static void append_random_piece(struct random_state *random, struct extent_map_builder *builder,
                                struct model *model, size_t longest)
{
    size_t length = (size_t)random_length(random);

    if (length > longest)
        length = longest;
    if (random_below(random, 10) == 0) {
        static const unsigned char zeros[5000];

        check(extent_map_append_zeros(builder, length) == 0);
        model_append(model, EXTENT_LITERAL, builder->zeros, zeros, length);
        return;
    }
    if (random_below(random, 5) == 0) {
        unsigned char literal[5000];

        for (size_t i = 0; i < length; i++)
            literal[i] = (unsigned char)random_next(random);
        model_append(model, EXTENT_LITERAL, builder->literal_size, literal, length);
        check(extent_map_append_literal(builder, literal, length) == 0);
        return;
    }

    uint32_t source = (uint32_t)random_below(random, SOURCES);
    size_t offset = (size_t)random_below(random, SOURCE_SIZE - length + 1);
    const struct extent *last = builder->count > 0 ? &builder->extents[builder->count - 1] : NULL;

    /* Often go on where the last piece ended: such pieces must be joined. */
    if (last != NULL && last->source != EXTENT_LITERAL && random_below(random, 3) == 0) {
        size_t end = (size_t)(last->source_offset + builder->size - last->view_offset);

        if (end + length <= SOURCE_SIZE) {
            source = last->source;
            offset = end;
        }
    }
    model_append(model, source, offset, source_bytes[source] + offset, length);
    check(extent_map_append_source(builder, source, offset, length) == 0);
}

static void build(struct random_state *random, size_t pieces, size_t longest,
                  struct extent_map *map, struct model *model)
{
    struct extent_map_builder builder = {0};

    memset(model, 0, sizeof *model);
    for (size_t i = 0; i < pieces; i++)
        append_random_piece(random, &builder, model, longest);
    check(extent_map_finish(&builder, map) == 0);
    check(builder.extents == NULL && builder.size == 0);
    check(map->size == model->size);
}

static void check_invariants(const struct extent_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        uint64_t end = i + 1 < map->count ? map->extents[i + 1].view_offset : map->size;

        check(map->extents[i].view_offset < end);
    }
    check(map->count == 0 || map->extents[0].view_offset == 0);
}

/* Reads through the map as a reader would: piece after piece. */
static void check_read(const struct extent_map *map, const struct model *model, size_t offset,
                       size_t length)
{
    while (length > 0) {
        struct extent_piece piece = extent_map_at(map, offset, length);
        const void *bytes;

        check(piece.view_offset == offset && piece.length > 0 && piece.length <= length);
        if (piece.source == EXTENT_LITERAL) {
            check(piece.source_offset + piece.length <= map->literal_size);
            bytes = map->literal + piece.source_offset;
        } else {
            check(piece.source < SOURCES && piece.source_offset + piece.length <= SOURCE_SIZE);
            bytes = source_bytes[piece.source] + piece.source_offset;
        }
        check(memcmp(bytes, model->bytes + offset, (size_t)piece.length) == 0);
        check(piece.source == model->source[offset]);
        check(piece.source_offset == model->source_offset[offset]);
        offset += (size_t)piece.length;
        length -= (size_t)piece.length;
    }
}

/* At every boundary and one byte either side: one byte, a few, and across three pieces. */
static void check_boundaries(struct random_state *random, const struct extent_map *map,
                             const struct model *model)
{
    static const size_t lengths[] = {1, 2, 3, 40, 4096, 9000};

    for (size_t i = 0; i < model->boundary_count; i++) {
        for (int side = -1; side <= 1; side++) {
            size_t offset = model->boundaries[i] + (size_t)side;

            if (offset >= model->size)
                continue;
            size_t length = lengths[random_below(random, 6)];

            check_read(map, model, offset, 1);
            check_read(map, model, offset,
                       length < model->size - offset ? length : model->size - offset);
        }
    }
    check_read(map, model, 0, model->size);
}

/* The images of a range must cover each view byte that comes from it exactly once, and no other. */
static void check_images(const struct extent_map *map, const struct model *model, uint32_t source,
                         uint64_t offset, uint64_t length)
{
    struct extent_map_images images = extent_map_images_of(map, source, offset, length);
    struct extent_piece piece;
    unsigned char *seen = calloc(model->size + 1, 1);
    uint64_t previous = 0;

    check(seen != NULL);
    while (extent_map_next_image(&images, &piece)) {
        check(piece.source == source && piece.length > 0);
        check(piece.source_offset >= offset && piece.source_offset >= previous);
        check(piece.source_offset + piece.length <= offset + length);
        check(piece.view_offset + piece.length <= model->size);
        previous = piece.source_offset;
        for (uint64_t i = 0; i < piece.length; i++) {
            uint64_t at = piece.view_offset + i;

            check(seen[at] == 0);
            seen[at] = 1;
            check(model->source[at] == source);
            check(model->source_offset[at] == piece.source_offset + i);
        }
    }
    for (size_t i = 0; i < model->size; i++) {
        bool within = model->source[i] == source && model->source_offset[i] >= offset &&
                      model->source_offset[i] < offset + length;

        check(seen[i] == within);
    }
    free(seen);
}

static void check_sources(const struct extent_map *map, const struct model *model)
{
    bool shown[SOURCES] = {false};
    for (size_t i = 0; i < model->size; i++)
        if (model->source[i] != EXTENT_LITERAL)
            shown[model->source[i]] = true;
    for (uint32_t from = 0; from <= SOURCES; from++) {
        uint32_t next = from;
        while (next < SOURCES && !shown[next])
            next++;
        check(extent_map_next_source(map, from) == (next < SOURCES ? next : EXTENT_LITERAL));
    }
}

static void check_random_images(struct random_state *random, const struct extent_map *map,
                                const struct model *model)
{
    for (int i = 0; i < 20; i++) {
        uint64_t offset = random_below(random, SOURCE_SIZE + 10);

        check_images(map, model, (uint32_t)random_below(random, SOURCES + 1), offset,
                     random_length(random));
    }
    for (uint32_t source = 0; source < SOURCES; source++)
        check_images(map, model, source, 0, SOURCE_SIZE);
    check_images(map, model, 0, 0, 1);
    check_images(map, model, 0, SOURCE_SIZE - 1, 1);
}

static void fill_sources(void)
{
    struct random_state random = {1};

    for (size_t source = 0; source < SOURCES; source++)
        for (size_t i = 0; i < SOURCE_SIZE; i++)
            source_bytes[source][i] = (unsigned char)random_next(&random);
}

static void one_layout(uint64_t seed, size_t pieces, size_t longest)
{
    struct random_state random = {seed};
    struct extent_map map;
    struct model model;

    current_seed = seed;
    build(&random, pieces, longest, &map, &model);
    check_invariants(&map);
    check_boundaries(&random, &map, &model);
    check_random_images(&random, &map, &model);
    check_sources(&map, &model);
    extent_map_free(&map);
    model_free(&model);
}

static void test_random_layouts(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < LAYOUTS; i++)
        one_layout(random_seed() + i, (size_t)(i % 40), 5000);
}

static void test_thousands_of_extents(void **state)
{
    (void)state;
    one_layout(random_seed(), 6000, 40);
    one_layout(random_seed() + 1, 4000, 3);
}

static void test_tied_tensors(void **state)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;
    struct extent_piece piece;

    (void)state;
    /* One long range, a short one inside it, then one that begins after the short one has ended. */
    assert_int_equal(extent_map_append_source(&builder, 1, 0, 100), 0);
    assert_int_equal(extent_map_append_source(&builder, 1, 10, 5), 0);
    assert_int_equal(extent_map_append_source(&builder, 1, 10, 5), 0);
    assert_int_equal(extent_map_finish(&builder, &map), 0);
    assert_int_equal(map.count, 3);

    struct extent_map_images images = extent_map_images_of(&map, 1, 12, 50);

    assert_true(extent_map_next_image(&images, &piece));
    assert_int_equal(piece.view_offset, 12);
    assert_int_equal(piece.length, 50);
    assert_true(extent_map_next_image(&images, &piece));
    assert_int_equal(piece.view_offset, 102);
    assert_int_equal(piece.length, 3);
    assert_true(extent_map_next_image(&images, &piece));
    assert_int_equal(piece.view_offset, 107);
    assert_false(extent_map_next_image(&images, &piece));

    images = extent_map_images_of(&map, 1, 50, 1);
    assert_true(extent_map_next_image(&images, &piece));
    assert_int_equal(piece.view_offset, 50);
    assert_false(extent_map_next_image(&images, &piece));
    extent_map_free(&map);
}

static void test_pieces_are_joined(void **state)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;

    (void)state;
    assert_int_equal(extent_map_append_literal(&builder, "abc", 3), 0);
    assert_int_equal(extent_map_append_literal(&builder, "def", 3), 0);
    assert_int_equal(extent_map_append_source(&builder, 0, 8, 10), 0);
    assert_int_equal(extent_map_append_source(&builder, 7, 99, 0), 0);
    assert_int_equal(extent_map_append_source(&builder, 0, 18, 2), 0);
    assert_int_equal(extent_map_append_source(&builder, 1, 20, 2), 0);
    assert_int_equal(extent_map_finish(&builder, &map), 0);
    assert_int_equal(map.count, 3);
    assert_int_equal(map.size, 20);
    assert_memory_equal(map.literal, "abcdef", 6);
    extent_map_free(&map);
}

static void test_limits(void **state)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;
    struct extent_piece piece;

    (void)state;
    assert_int_equal(extent_map_append_source(&builder, EXTENT_LITERAL, 0, 1), -EINVAL);
    assert_int_equal(extent_map_append_source(&builder, 0, INT64_MAX, 1), -EOVERFLOW);
    assert_int_equal(extent_map_append_source(&builder, 0, UINT64_MAX, 1), -EOVERFLOW);
    assert_int_equal(extent_map_append_source(&builder, 0, 0, INT64_MAX), 0);
    assert_int_equal(extent_map_append_source(&builder, 1, 0, 1), -EOVERFLOW);
    assert_int_equal(extent_map_append_literal(&builder, "x", 1), -EOVERFLOW);
    assert_int_equal(extent_map_finish(&builder, &map), 0);
    assert_int_equal(map.size, INT64_MAX);
    piece = extent_map_at(&map, INT64_MAX - 1, UINT64_MAX);
    assert_int_equal(piece.length, 1);
    extent_map_free(&map);

    assert_int_equal(extent_map_finish(&builder, &map), 0);
    assert_int_equal(map.size, 0);
    struct extent_map_images images = extent_map_images_of(&map, 0, 0, UINT64_MAX);
    assert_false(extent_map_next_image(&images, &piece));
    extent_map_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_layouts), cmocka_unit_test(test_thousands_of_extents),
        cmocka_unit_test(test_tied_tensors),   cmocka_unit_test(test_pieces_are_joined),
        cmocka_unit_test(test_limits),
    };

    fill_sources();
    return cmocka_run_group_tests_name("extent_map", tests, NULL, NULL);
}
