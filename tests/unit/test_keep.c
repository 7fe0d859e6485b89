/* SPDX-License-Identifier: MIT
 *
 * Memory that outlives the process: what is found in it by the next one, wherever the one before
 * was killed. */
#include "keep/keep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AREA = 10000, SLOTS = 64, KILLS = 60 };

static struct unshard_keep *make(void)
{
    struct unshard_keep *keep;
    struct unshard_error error;
    assert_int_equal(unshard_keep_new(AREA, &keep, &error), 0);
    return keep;
}

static struct unshard_keep *take_over(struct unshard_keep *keep)
{
    struct unshard_keep *next;
    struct unshard_error error;
    assert_int_equal(unshard_keep_take(unshard_keep_descriptor(keep), AREA, &next, &error), 0);
    unshard_keep_close(keep);
    return next;
}

struct found {
    uint64_t values[SLOTS];
    size_t count;
};

static int note(void *context, void *record, size_t size)
{
    struct found *found = context;
    assert_true(size >= sizeof(uint64_t));
    assert_true(found->count < SLOTS);
    memcpy(&found->values[found->count++], record, sizeof(uint64_t));
    return 0;
}

static struct found find(struct unshard_keep *keep, enum unshard_keep_kind kind)
{
    struct found found = {.count = 0};
    assert_int_equal(unshard_keep_each(keep, kind, note, &found), 0);
    return found;
}

static uint64_t *add(struct unshard_keep *keep, enum unshard_keep_kind kind, uint64_t value,
                     size_t size)
{
    uint64_t *record = unshard_keep_add(keep, kind, size);
    assert_non_null(record);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(((const char *)record)[i], 0);
    *record = value;
    return record;
}

static void what_is_committed_is_found_by_the_next_one(void **state)
{
    (void)state;
    struct unshard_keep *keep = make();
    unshard_keep_commit(add(keep, UNSHARD_KEEP_NODE, 1, 8));
    uint64_t *removed = add(keep, UNSHARD_KEEP_NODE, 2, 300);
    unshard_keep_commit(removed);
    unshard_keep_commit(add(keep, UNSHARD_KEEP_FILE, 3, 70000));
    add(keep, UNSHARD_KEEP_NODE, 4, 8); /* never committed */
    unshard_keep_commit(add(keep, UNSHARD_KEEP_NODE, 5, 3 << 20));
    unshard_keep_remove(keep, removed);
    unshard_keep_remove(keep, NULL);
    memset(unshard_keep_area(keep), 7, AREA);

    keep = take_over(keep);
    struct found nodes = find(keep, UNSHARD_KEEP_NODE), files = find(keep, UNSHARD_KEEP_FILE);
    assert_int_equal(nodes.count, 2);
    assert_int_equal(nodes.values[0], 1);
    assert_int_equal(nodes.values[1], 5);
    assert_int_equal(files.count, 1);
    assert_int_equal(files.values[0], 3);
    for (int i = 0; i < AREA; i++)
        assert_int_equal(((const char *)unshard_keep_area(keep))[i], 7);
    unshard_keep_close(keep);
}

static void what_is_free_is_used_again_and_is_zero(void **state)
{
    (void)state;
    struct unshard_keep *keep = make();
    static const size_t sizes[] = {1, 48, 49, 1008, 1009, 5000, 100000, 200000, 5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *first = unshard_keep_add(keep, UNSHARD_KEEP_NODE, sizes[i]);
        assert_non_null(first);
        assert_true(unshard_keep_size(first) >= sizes[i]);
        assert_true(unshard_keep_size(first) <= sizes[i] + sizes[i] / 4 + 64);
        memset(first, 0xa5, unshard_keep_size(first));
        unshard_keep_commit(first);
        unshard_keep_remove(keep, first);
        char *second = unshard_keep_add(keep, UNSHARD_KEEP_FILE, sizes[i]);
        assert_ptr_equal(first, second);
        for (size_t k = 0; k < unshard_keep_size(second); k++)
            assert_int_equal(second[k], 0);
    }
    assert_null(unshard_keep_add(keep, UNSHARD_KEEP_NODE, (size_t)2 << 30));
    assert_null(unshard_keep_add(NULL, UNSHARD_KEEP_NODE, 1));
    keep = take_over(keep); /* none was committed: all is free */
    assert_int_equal(find(keep, UNSHARD_KEEP_FILE).count, 0);
    assert_non_null(unshard_keep_add(keep, UNSHARD_KEEP_FILE, 5 << 20));
    unshard_keep_close(keep);
}

static void nothing_is_taken_over_of_what_makes_no_sense(void **state)
{
    (void)state;
    struct unshard_keep *next;
    struct unshard_error error;
    int empty = memfd_create("test", MFD_CLOEXEC);
    assert_true(unshard_keep_take(empty, AREA, &next, &error) < 0);
    assert_int_equal(ftruncate(empty, (off_t)1 << 30), 0);
    assert_true(unshard_keep_take(empty, AREA, &next, &error) < 0);
    assert_string_equal(error.code, "keep-layout");
    close(empty);
    struct unshard_keep *keep = make();
    int fd = unshard_keep_descriptor(keep);
    assert_true(unshard_keep_take(fd, AREA + 5000, &next, &error) < 0);
    /* Of damage between records only what is before it is found. */
    unshard_keep_commit(add(keep, UNSHARD_KEEP_NODE, 1, 8));
    uint64_t *second = add(keep, UNSHARD_KEEP_NODE, 2, 8);
    unshard_keep_commit(second);
    unshard_keep_commit(add(keep, UNSHARD_KEEP_NODE, 3, 8));
    memset(second - 2, 0xff, 16);
    keep = take_over(keep);
    assert_int_equal(find(keep, UNSHARD_KEEP_NODE).count, 1);
    unshard_keep_commit(add(keep, UNSHARD_KEEP_NODE, 4, 8));
    assert_int_equal(find(keep, UNSHARD_KEEP_NODE).count, 2);
    unshard_keep_close(keep);
}

/* ---- killed anywhere ---------------------------------------------------------------------------
 */

struct counted {
    uint64_t number, length;
    unsigned char bytes[];
};

/* Adds and removes for ever. */
static void work(struct unshard_keep *keep, unsigned seed)
{
    struct counted *kept[SLOTS] = {NULL};
    for (uint64_t number = 1;; number++) {
        struct counted **slot = &kept[(unsigned)rand_r(&seed) % SLOTS];
        unshard_keep_remove(keep, *slot);
        size_t length = (size_t)rand_r(&seed) % (rand_r(&seed) % 16 == 0 ? 300000 : 500);
        *slot = unshard_keep_add(keep, UNSHARD_KEEP_FILE, sizeof **slot + length);
        if (*slot == NULL)
            _exit(1);
        (*slot)->number = number;
        (*slot)->length = length;
        memset((*slot)->bytes, (int)(number % 251), length);
        unshard_keep_commit(*slot);
    }
}

static int check(void *context, void *record, size_t size)
{
    const struct counted *counted = record;
    size_t *count = context;
    assert_true(counted->length <= size - sizeof *counted);
    for (size_t i = 0; i < counted->length; i++)
        assert_int_equal(counted->bytes[i], counted->number % 251);
    ++*count;
    return 0;
}

static int collect(void *context, void *record, size_t size)
{
    void **all = context;
    (void)size;
    while (*all != NULL)
        all++;
    *all = record;
    return 0;
}

static void a_kill_anywhere_leaves_whole_records(void **state)
{
    (void)state;
    struct unshard_keep *keep = make();
    for (unsigned kill_number = 0; kill_number < KILLS; kill_number++) {
        pid_t child = fork();
        if (child == 0)
            work(keep, kill_number);
        struct timespec wait = {.tv_nsec = 200000L + kill_number * 50000L};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        keep = take_over(keep);
        size_t count = 0;
        assert_int_equal(unshard_keep_each(keep, UNSHARD_KEEP_FILE, check, &count), 0);
        assert_true(count <= SLOTS);
        void *all[SLOTS + 1] = {NULL};
        unshard_keep_each(keep, UNSHARD_KEEP_FILE, collect, all);
        for (size_t i = 0; i < count; i++)
            unshard_keep_remove(keep, all[i]);
    }
    unshard_keep_close(keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_committed_is_found_by_the_next_one),
        cmocka_unit_test(what_is_free_is_used_again_and_is_zero),
        cmocka_unit_test(nothing_is_taken_over_of_what_makes_no_sense),
        cmocka_unit_test(a_kill_anywhere_leaves_whole_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
