/* SPDX-License-Identifier: MIT
 *
 * Taking pages back, with a kernel of our own: one that answers, answers short, refuses, or answers
 * when nobody waits any more. */
#include "fs/kernel/retriever.c"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define VIEW 3U
#define NODEID 77U

static struct filesystem filesystem;

/* What the kernel was asked for, and what it does. */
static struct {
    uint64_t numbers[8], offsets[8];
    size_t sizes[8], count;
    int refuses;       /* the notification fails with that */
    size_t less;       /* so many bytes too few come back */
    bool silent;       /* nothing does */
    pthread_t answers; /* the thread that answers the last one */
    bool answering;
} kernel;

static char byte_at(uint64_t offset)
{
    return (char)(offset * 31 + (offset >> 12));
}

uint64_t inode_table_view_nodeid(struct inode_table *table, uint32_t view)
{
    (void)table;
    return view == VIEW ? NODEID : 0;
}

ssize_t fuse_buf_copy(struct fuse_bufvec *to, struct fuse_bufvec *from,
                      enum fuse_buf_copy_flags flags)
{
    (void)flags;
    size_t size = from->buf[0].size < to->buf[0].size ? from->buf[0].size : to->buf[0].size;
    memcpy(to->buf[0].mem, from->buf[0].mem, size);
    return (ssize_t)size;
}

static void answer(size_t which, size_t size)
{
    char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(kernel.offsets[which] + i);
    struct fuse_bufvec from = FUSE_BUFVEC_INIT(size);
    from.buf[0].mem = bytes;
    retriever_answer(filesystem.retriever, kernel.numbers[which], &from);
    free(bytes);
}

static void *answer_last(void *unused)
{
    (void)unused;
    answer(kernel.count - 1, kernel.sizes[kernel.count - 1] - kernel.less);
    return NULL;
}

static void let_it_end(void)
{
    if (kernel.answering)
        pthread_join(kernel.answers, NULL);
    kernel.answering = false;
}

int fuse_lowlevel_notify_retrieve(struct fuse_session *session, fuse_ino_t ino, size_t size,
                                  off_t offset, void *cookie)
{
    (void)session;
    let_it_end();
    assert_int_equal(ino, NODEID);
    assert_true(kernel.count < 8);
    kernel.numbers[kernel.count] = (uint64_t)(uintptr_t)cookie;
    kernel.offsets[kernel.count] = (uint64_t)offset;
    kernel.sizes[kernel.count++] = size;
    if (kernel.refuses != 0 || kernel.silent)
        return kernel.refuses;
    kernel.answering = pthread_create(&kernel.answers, NULL, answer_last, NULL) == 0;
    assert_true(kernel.answering);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof kernel);
    filesystem.retriever = retriever_new();
    return filesystem.retriever ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    let_it_end();
    retriever_free(filesystem.retriever);
    return 0;
}

static void test_what_is_there_comes_in_pieces_that_the_kernel_gives(void **state)
{
    enum { SIZE = 2 * LARGEST_READ + 100 };
    const uint64_t offset = LARGEST_READ - 4096;
    char *out = malloc(SIZE);
    (void)state;
    assert_non_null(out);
    assert_int_equal(retriever_take(&filesystem, VIEW, offset, out, SIZE), 0);
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(out[i], byte_at(offset + i));
    assert_int_equal(kernel.count, 3);
    assert_int_equal(kernel.sizes[0], 4096);
    for (size_t i = 0; i < kernel.count; i++)
        assert_true(kernel.sizes[i] <= LARGEST_READ);
    free(out);
}

static void test_less_than_all_is_nothing(void **state)
{
    char out[8192];
    (void)state;
    kernel.less = 1;
    assert_int_equal(retriever_take(&filesystem, VIEW, 0, out, sizeof out), -ENODATA);
}

static void test_an_unknown_view_has_no_pages(void **state)
{
    char out[4096];
    (void)state;
    assert_int_equal(retriever_take(&filesystem, VIEW + 1, 0, out, sizeof out), -ENODATA);
    assert_int_equal(kernel.count, 0);
}

static void test_a_refusal_is_told(void **state)
{
    char out[4096];
    (void)state;
    kernel.refuses = -ENOENT;
    assert_int_equal(retriever_take(&filesystem, VIEW, 0, out, sizeof out), -ENOENT);
    assert_null(filesystem.retriever->first);
}

/* ...and the answer that comes when the buffer is somebody else's again finds no ticket. */
static void test_silence_ends_the_wait(void **state)
{
    char out[4096] = {0};
    static const char zeroes[sizeof out];
    (void)state;
    kernel.silent = true;
    assert_int_equal(retriever_take(&filesystem, VIEW, 0, out, sizeof out), -ETIMEDOUT);
    answer(0, sizeof out);
    assert_memory_equal(out, zeroes, sizeof out);
    kernel.silent = false;
    assert_int_equal(retriever_take(&filesystem, VIEW, 0, out, sizeof out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_there_comes_in_pieces_that_the_kernel_gives,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_less_than_all_is_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_unknown_view_has_no_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refusal_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence_ends_the_wait, setup, teardown),
    };
    return cmocka_run_group_tests_name("retriever", tests, NULL, NULL);
}
