/* SPDX-License-Identifier: MIT
 *
 * How a file is read: what is in the page cache comes from there, what is not leaves nothing there.
 * The files lie in build/, which is on storage; a file system that takes no direct
 * I/O, or one without storage, makes these tests skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/read_fully.h"
#include "store/file_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, SIZE = 8 << 20, CHUNK = 1 << 20 };

struct file {
    char path[40];
    int fd, direct;
    unsigned char *bytes, *buffer;
};

static size_t pages_present(int fd, size_t size)
{
    static unsigned char present[SIZE / PAGE];
    size_t pages = (size + PAGE - 1) / PAGE, count = 0;
    void *mapping = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(mapping, MAP_FAILED);
    assert_int_equal(mincore(mapping, size, present), 0);
    munmap(mapping, size);
    for (size_t i = 0; i < pages; i++)
        count += present[i] & 1;
    return count;
}

static void drop(const struct file *file)
{
    assert_int_equal(fsync(file->fd), 0);
    assert_int_equal(posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static int make_file(void **state, size_t size)
{
    struct file *file = calloc(1, sizeof *file);
    *state = file;
    strcpy(file->path, "build/test-source-XXXXXX");
    file->fd = mkstemp(file->path);
    file->direct = open(file->path, O_RDONLY | O_DIRECT);
    file->bytes = malloc(size);
    file->buffer = aligned_alloc(PAGE, SIZE + PAGE);
    for (size_t i = 0; i < size; i++)
        file->bytes[i] = (unsigned char)(i * 131 + i / PAGE);
    return write(file->fd, file->bytes, size) == (ssize_t)size ? 0 : -1;
}

static int setup(void **state)
{
    return make_file(state, SIZE);
}

static int setup_odd(void **state)
{
    return make_file(state, CHUNK + 777);
}

static int teardown(void **state)
{
    struct file *file = *state;
    unlink(file->path);
    close(file->fd);
    if (file->direct >= 0)
        close(file->direct);
    free(file->bytes);
    free(file->buffer);
    free(file);
    return 0;
}

/* Skips where the file system has no storage behind it, or does not tell what is cached. */
static void drop_or_skip(const struct file *file)
{
    drop(file);
    if (file->direct < 0 || pages_present(file->fd, PAGE) != 0 ||
        file_read_if_cached(file->fd, 0, file->buffer, PAGE) == -EOPNOTSUPP)
        skip();
}

static void test_what_is_missing_is_not_read(void **state)
{
    struct file *file = *state;
    drop_or_skip(file);
    for (uint64_t offset = 0; offset < SIZE; offset += CHUNK)
        assert_int_equal(file_read_if_cached(file->fd, offset, file->buffer, CHUNK), 0);
    assert_int_equal(pages_present(file->fd, SIZE), 0);
}

static void test_direct_leaves_nothing(void **state)
{
    struct file *file = *state;
    drop_or_skip(file);
    assert_int_equal(file_read_direct(file->direct, CHUNK, file->buffer, CHUNK), CHUNK);
    assert_memory_equal(file->buffer, file->bytes + CHUNK, CHUNK);
    assert_int_equal(pages_present(file->fd, SIZE), 0);
}

static void test_what_is_there_is_taken(void **state)
{
    struct file *file = *state;
    drop_or_skip(file);
    assert_int_equal(read_fully(file->fd, 2 * CHUNK, file->buffer, CHUNK), CHUNK);
    memset(file->buffer, 0, CHUNK);
    assert_int_equal(file_read_if_cached(file->fd, 2 * CHUNK, file->buffer, CHUNK), 1);
    assert_memory_equal(file->buffer, file->bytes + 2 * CHUNK, CHUNK);
}

/* One page missing in the middle: not taken, and still missing. */
static void test_a_hole_is_noticed(void **state)
{
    struct file *file = *state;
    size_t hole = 3 * CHUNK + 77 * PAGE;
    drop_or_skip(file);
    assert_int_equal(posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM), 0);
    for (size_t page = 3 * CHUNK; page < 4 * CHUNK; page += PAGE)
        if (page != hole)
            assert_int_equal(read_fully(file->fd, page, file->buffer, PAGE), PAGE);
    size_t before = pages_present(file->fd, SIZE);
    if (before != CHUNK / PAGE - 1)
        skip(); /* the file system keeps more pages together */
    assert_int_equal(file_read_if_cached(file->fd, 3 * CHUNK, file->buffer, CHUNK), 0);
    assert_int_equal(pages_present(file->fd, SIZE), before);
}

static void test_tail(void **state)
{
    struct file *file = *state;
    drop_or_skip(file);
    assert_int_equal(file_read_direct(file->direct, CHUNK, file->buffer, 777), 777);
    assert_memory_equal(file->buffer, file->bytes + CHUNK, 777);
    /* More is asked than there is: what there is. */
    assert_int_equal(file_read_direct(file->direct, CHUNK, file->buffer, 2 * PAGE), 777);
    assert_int_equal(read_fully(file->fd, CHUNK, file->buffer, 2 * PAGE), 777);
    assert_int_equal(file_read_if_cached(file->fd, CHUNK, file->buffer, 777), 1);
    assert_memory_equal(file->buffer, file->bytes + CHUNK, 777);
    assert_int_equal(file_read_if_cached(file->fd, CHUNK, file->buffer, 2 * PAGE), 0);
}

static void test_errors(void **state)
{
    struct file *file = *state;
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(read_fully(pipe_ends[0], 0, file->buffer, PAGE), -ESPIPE);
    assert_int_equal(file_read_direct(pipe_ends[0], 0, file->buffer, PAGE), -ESPIPE);
    assert_int_equal(file_read_if_cached(pipe_ends[0], 0, file->buffer, PAGE), 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_missing_is_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_direct_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_there_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hole_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail, setup_odd, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
