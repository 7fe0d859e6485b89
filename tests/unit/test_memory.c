/* SPDX-License-Identifier: MIT
 *
 * What headers may take of memory: one account for all of them, a file is read once for all of its
 * names, and who finds nothing left says so. */
#include "support/safetensors_fixture.h"
#include "tree/headers.h"
#include "view/planner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { MIB = 1 << 20, FILES = 6 };

static void an_arena_takes_from_its_budget_and_gives_back(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = MIB};
    struct arena arena = {.budget = &budget}, other = {.budget = &budget};
    assert_non_null(arena_alloc(&arena, MIB / 2));
    assert_true(budget.taken >= MIB / 2);
    assert_null(arena_alloc(&other, MIB / 2));
    assert_true(other.refused);
    assert_false(arena.refused);
    arena_free(&arena);
    assert_int_equal(budget.taken, 0);
    assert_non_null(arena_alloc(&other, MIB / 2));
    arena_free(&other);
    assert_int_equal(budget.taken, 0);
}

static void what_lies_beside_an_arena_counts(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = MIB};
    struct arena arena = {.budget = &budget}, beside = arena_beside(&arena);
    assert_true(arena_charge(&arena, MIB / 2));
    assert_false(arena_charge(&beside, MIB));
    assert_null(arena_alloc(&beside, MIB));
    arena_free_beside(&beside, &arena);
    assert_true(arena.refused);
    arena_discharge(&arena, MIB / 4);
    assert_int_equal(budget.taken, MIB / 4);
    arena_free(&arena);
    assert_int_equal(budget.taken, 0);
}

static void adopted_memory_goes_with_the_arena(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = MIB};
    struct arena arena = {.budget = &budget};
    for (unsigned i = 0; i < 3; i++) {
        assert_true(arena_charge(&arena, 1000));
        assert_true(arena_adopt(&arena, malloc(1000)));
    }
    assert_true(budget.taken >= 3000);
    arena_free(&arena); /* the leak checker sees what is left */
    assert_int_equal(budget.taken, 0);
}

/* ---- headers -----------------------------------------------------------------------------------
 */

/* A file whose header has so many bytes, nearly all of them one value of its metadata. */
static void write_file(const char *root, const char *name, size_t header_bytes)
{
    const struct fixture_tensor tensor = {"t", "U8", 16, 1};
    char *metadata = malloc(header_bytes + 32);
    int start = sprintf(metadata, "{\"k\":\"");
    memset(metadata + start, 'x', header_bytes);
    strcpy(metadata + start + header_bytes, "\"}");
    fixture_safetensors(root, name, metadata, &tensor, 1, 0);
    free(metadata);
}

static const char *name_of(unsigned i)
{
    static char name[32];
    snprintf(name, sizeof name, "%u.safetensors", i);
    return name;
}

static struct unshard_checkpoint *open_checkpoint(const char *root)
{
    struct unshard_error error;
    struct unshard_checkpoint *checkpoint = NULL;
    if (unshard_checkpoint_open(root, NULL, &checkpoint, &error) != 0)
        fail_msg("%s", error.message);
    return checkpoint;
}

static struct header *read_all(const struct unshard_checkpoint *checkpoint, bool alone,
                               struct memory_budget *budget)
{
    struct header *headers = calloc(checkpoint->file_count, sizeof *headers);
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        headers[i] =
            (struct header){.file = i, .format = format_of_name("safetensors"), .alone = alone};
    headers_read(checkpoint, headers, checkpoint->file_count, budget);
    return headers;
}

/* One header fits, with what is needed while it is read, and two of them do not. */
static void names_of_one_file_cost_one_header(void **state)
{
    (void)state;
    struct memory_budget budget = {.limit = 3 * MIB};
    char *root = fixture_directory();
    write_file(root, name_of(0), MIB);
    for (unsigned i = 1; i < FILES; i++)
        assert_int_equal(symlink("0.safetensors", fixture_path(root, name_of(i))), 0);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    struct header *headers = read_all(checkpoint, false, &budget);
    assert_int_equal(checkpoint->file_count, FILES);
    for (uint32_t i = 0; i < FILES; i++) {
        assert_int_equal(headers[i].result, 0);
        assert_int_equal(headers[i].set.tensor_count, 1);
        assert_int_equal(headers[i].set.tensors[0].file, i);
        assert_int_equal(checkpoint->files[i].header_piece_count,
                         checkpoint->files[0].header_piece_count);
    }
    headers_free(headers, FILES);
    assert_int_equal(budget.taken, 0);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* A name of a bad file has the error of the file, with its own name in it. */
static void an_error_is_told_of_each_name(void **state)
{
    (void)state;
    char *root = fixture_directory();
    fixture_text(root, "0.safetensors", "rubbish, and more of it");
    assert_int_equal(symlink("0.safetensors", fixture_path(root, "1.safetensors")), 0);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->component_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        const struct component *component = &checkpoint->components[i];
        const char *path = checkpoint->files[component->files[0]].path;
        assert_true(component->failed);
        assert_memory_equal(component->error.message, path, strlen(path));
    }
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* As many as fit are read, in whatever order; the others say that they were not. */
static void what_does_not_fit_says_so(void **state)
{
    (void)state;
    char *root = fixture_directory();
    for (unsigned i = 0; i < FILES; i++)
        write_file(root, name_of(i), MIB);
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    for (unsigned alone = 0; alone < 2; alone++) {
        struct memory_budget budget = {.limit = 11 * MIB / 2};
        unsigned read = 0;
        struct header *headers = read_all(checkpoint, alone, &budget);
        for (uint32_t i = 0; i < FILES; i++) {
            const struct header *header = &headers[i];
            read += header->set.tensor_count == 1;
            if (header->set.tensor_count == 1)
                continue;
            assert_int_equal(header->skipped, alone);
            assert_int_equal(header->result == 0, alone);
            if (alone)
                assert_non_null(strstr(header->set.note, "was not looked at"));
            else
                assert_string_equal(header->error.code, "header-memory");
        }
        assert_in_range(read, 3, 4);
        assert_true(budget.taken <= budget.limit);
        headers_free(headers, FILES);
        assert_int_equal(budget.taken, 0);
    }
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* Each of these sets asks for 99,998 shards that are not there. */
static void absent_shards_are_listed_up_to_a_bound(void **state)
{
    (void)state;
    char *root = fixture_directory(), name[64];
    enum { SETS = 30 };
    for (unsigned i = 0; i < SETS; i++) {
        snprintf(name, sizeof name, "%u/model-00001-of-99999.safetensors", i);
        write_file(root, name, 16);
    }
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->component_count, SETS);
    assert_true(checkpoint->file_count <= SETS + 20000);
    for (unsigned i = 0; i < SETS; i++) {
        assert_true(checkpoint->components[i].failed);
        assert_string_equal(checkpoint->components[i].error.code, "missing");
    }
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* The same of names that no loader knows: each is a file by itself, the last one as the first. */
static void files_that_are_numbered_stay_what_they_are(void **state)
{
    (void)state;
    char *root = fixture_directory(), name[64];
    enum { SETS = 30 };
    for (unsigned i = 0; i < SETS; i++) {
        snprintf(name, sizeof name, "m%u-00001-of-99999.safetensors", i);
        write_file(root, name, 16);
    }
    struct unshard_checkpoint *checkpoint = open_checkpoint(root);
    assert_int_equal(checkpoint->component_count, SETS);
    for (unsigned i = 0; i < SETS; i++)
        assert_false(checkpoint->components[i].failed);
    unshard_checkpoint_close(checkpoint);
    fixture_remove(root);
}

/* Tensors of a sparse file that each have as many long runs as one may: an extent for each of the
 * first ones, the others are put together on reading. */
static void extents_of_a_view_have_a_bound(void **state)
{
    (void)state;
    enum { RUNS = 1 << 20, TENSORS = 4 };
    const uint64_t shape[] = {RUNS, MIB};
    const struct gather_dimension dimension = {RUNS, 2 * MIB, MIB};
    struct gather_box box = {.rank = 1, .run = MIB, .dimensions = &dimension};
    const struct gather gather = {.boxes = &box, .box_count = 1, .length = (uint64_t)RUNS * MIB};
    struct tensor tensors[TENSORS];
    static const char *const names[] = {"a", "b", "c", "d"};
    for (unsigned i = 0; i < TENSORS; i++)
        tensors[i] = (struct tensor){.name = names[i],
                                     .name_length = 1,
                                     .rank = 2,
                                     .shape = shape,
                                     .dtype = DTYPE_U8,
                                     .length = gather.length,
                                     .gather = &gather};
    const struct tensor_set set = {.tensors = tensors, .tensor_count = TENSORS};
    const struct planner_input input = {.sets = &set,
                                        .set_count = 1,
                                        .component = "test",
                                        .first_gathered = 1,
                                        .format = format_of_name("safetensors")};
    struct merged_view view = {0};
    struct unshard_error error;
    assert_int_equal(planner_merge(&input, &view, &error), 0);
    assert_true(view.map.count <= RUNS + TENSORS);
    assert_int_equal(view.gathered_count, 1);
    merged_view_free(&view);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_arena_takes_from_its_budget_and_gives_back),
        cmocka_unit_test(what_lies_beside_an_arena_counts),
        cmocka_unit_test(adopted_memory_goes_with_the_arena),
        cmocka_unit_test(names_of_one_file_cost_one_header),
        cmocka_unit_test(an_error_is_told_of_each_name),
        cmocka_unit_test(what_does_not_fit_says_so),
        cmocka_unit_test(absent_shards_are_listed_up_to_a_bound),
        cmocka_unit_test(files_that_are_numbered_stay_what_they_are),
        cmocka_unit_test(extents_of_a_view_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
