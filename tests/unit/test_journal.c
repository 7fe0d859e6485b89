/* SPDX-License-Identifier: MIT
 *
 * The journal of requests, over a socket that stands in for the kernel: what it hands over is
 * found by the next process, wherever the one before was killed. */
#include "fs/kernel/journal.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, KILLS = 40 };
#define AGAIN (UINT64_C(1) << 63)

static void *area;
static int kernel, device; /* both ends */
static char buffer[BUFFER];

static int set_up(void **state)
{
    (void)state;
    int ends[2];
    area = mmap(NULL, journal_area_bytes(), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
        return -1;
    kernel = ends[0];
    device = ends[1];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(kernel);
    close(device);
    munmap(area, journal_area_bytes());
    return 0;
}

static struct journal *make(unsigned generation)
{
    struct journal *journal = journal_new(area, generation);
    assert_non_null(journal);
    return journal;
}

static void send_request(uint32_t opcode, uint64_t unique, size_t more)
{
    char request[JOURNAL_REQUEST_MAX + 4096] = {0};
    struct fuse_in_header in = {
        .len = (uint32_t)(sizeof in + more), .opcode = opcode, .unique = unique, .nodeid = unique};
    memcpy(request, &in, sizeof in);
    memset(request + sizeof in, (int)(unique % 251), more);
    assert_int_equal(send(kernel, request, in.len, 0), in.len);
}

static void receive(struct journal *journal, uint64_t unique)
{
    assert_true(journal_read(journal, device, buffer, sizeof buffer) > 0);
    assert_int_equal(((struct fuse_in_header *)buffer)->unique, unique);
}

static void answer(struct journal *journal, uint64_t unique)
{
    struct fuse_out_header out = {sizeof out, 0, unique}, got;
    struct iovec piece = {&out, sizeof out};
    assert_int_equal(journal_write(journal, device, &piece, 1), sizeof out);
    assert_int_equal(recv(kernel, &got, sizeof got, 0), sizeof got);
    assert_int_equal(got.unique, unique);
}

/* The next request that was taken over; 0: none. */
static uint64_t next(struct journal *journal, bool *doomed)
{
    static char request[JOURNAL_REQUEST_MAX];
    const struct fuse_in_header *in = (const struct fuse_in_header *)request;
    size_t length = journal_next(journal, request, doomed);
    if (length == 0)
        return 0;
    assert_int_equal(in->len, length);
    for (size_t i = sizeof *in; i < length; i++)
        assert_int_equal((unsigned char)request[i], in->unique % 251);
    return in->unique;
}

static void what_is_unanswered_is_taken_over(void **state)
{
    (void)state;
    bool doomed = false;
    struct journal *journal = make(0);
    send_request(FUSE_READ, 2, 40);
    send_request(FUSE_LOOKUP, 4, 200);
    send_request(FUSE_FORGET, 6, 8);
    send_request(FUSE_BATCH_FORGET, 8, 40000 % 4096);
    send_request(FUSE_READ, 10, JOURNAL_REQUEST_MAX - sizeof(struct fuse_in_header));
    for (uint64_t unique = 2; unique <= 10; unique += 2)
        receive(journal, unique);
    assert_int_equal(journal_parked(journal), 3);
    answer(journal, 4);
    assert_int_equal(journal_parked(journal), 2);
    journal_free(journal);

    journal = make(1);
    assert_int_equal(journal_parked(journal), 2);
    uint64_t first = next(journal, &doomed), second = next(journal, &doomed);
    assert_int_equal(first + second, 12);
    assert_int_equal(next(journal, &doomed), 0);
    assert_false(doomed);
    answer(journal, 2);
    journal_free(journal);

    journal = make(2); /* begun by one that was killed meanwhile, not answered */
    assert_int_equal(next(journal, &doomed), 10);
    assert_int_equal(next(journal, &doomed), 0);
    assert_false(doomed);
    answer(journal, 10);
    assert_int_equal(journal_parked(journal), 0);
    journal_free(journal);
}

static void what_is_sent_again_has_a_number_of_its_own(void **state)
{
    (void)state;
    bool doomed = false;
    struct journal *journal = make(0);
    send_request(FUSE_READ, 2, 40);
    receive(journal, 2);
    send_request(FUSE_READ, 2 | AGAIN, 40);
    receive(journal, 2 | AGAIN);
    assert_int_equal(journal_parked(journal), 2);
    answer(journal, 2);
    assert_int_equal(journal_parked(journal), 1);
    journal_free(journal);
    journal = make(1);
    assert_true(next(journal, &doomed) == (2 | AGAIN));
    answer(journal, 2 | AGAIN);
    journal_free(journal);
}

/* The first process, with request 2. */
static void crash_while_one_is_read(void)
{
    struct journal *journal = make(0);
    send_request(FUSE_READ, 2, 40);
    receive(journal, 2);
    journal_crashed(journal);
    journal_free(journal);
}

static void poison_is_not_begun_by_a_third(void **state)
{
    (void)state;
    bool doomed = true;
    struct journal *journal;
    crash_while_one_is_read();

    journal = make(1); /* it may have been another request */
    send_request(FUSE_READ, 4, 40);
    receive(journal, 4);
    assert_int_equal(next(journal, &doomed), 2);
    assert_false(doomed);
    send_request(FUSE_READ, 2 | AGAIN, 40);
    receive(journal, 2 | AGAIN);
    journal_crashed(journal);
    journal_free(journal);

    journal = make(2);
    for (int i = 0; i < 3; i++) {
        uint64_t unique = next(journal, &doomed);
        assert_true(unique == 2 || unique == 4 || unique == (2 | AGAIN));
        assert_int_equal(doomed, unique != 4);
    }
    assert_int_equal(next(journal, &doomed), 0);
    journal_free(journal);
}

static void a_killed_one_has_not_crashed(void **state)
{
    (void)state;
    bool doomed = true;
    struct journal *journal;
    crash_while_one_is_read();
    for (unsigned generation = 1; generation < 9; generation++) {
        journal = make(generation);
        assert_int_equal(next(journal, &doomed), 2);
        assert_false(doomed);
        journal_free(journal);
    }
}

static void more_than_there_is_room_for_goes_on_without(void **state)
{
    (void)state;
    enum { MANY = 8200 };
    struct journal *journal = make(0);
    for (uint64_t unique = 2; unique <= 2 * MANY; unique += 2) {
        send_request(FUSE_READ, unique, 40);
        receive(journal, unique);
    }
    assert_int_equal(journal_parked(journal), 8192);
    for (uint64_t unique = 2; unique <= 2 * MANY; unique += 2)
        answer(journal, unique);
    assert_int_equal(journal_parked(journal), 0);
    send_request(FUSE_READ, 2 * MANY + 2, 40);
    receive(journal, 2 * MANY + 2);
    assert_int_equal(journal_parked(journal), 1);
    journal_free(journal);
}

/* A request is read by a thread of the dead process when the next one has begun. */
static void what_lands_late_is_found(void **state)
{
    (void)state;
    bool doomed = false;
    struct journal *old = make(3), *journal = make(4);
    assert_int_equal(next(journal, &doomed), 0);
    pid_t child = fork();
    if (child == 0) { /* dies with the request in its landing: it cannot be parked */
        signal(SIGSEGV, SIG_DFL);
        char *nowhere = mmap(NULL, BUFFER, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        kill(getpid(), journal_read(old, device, nowhere, BUFFER) > 0 ? SIGKILL : SIGTERM);
    }
    send_request(FUSE_READ, 2, 40);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_int_equal(next(journal, &doomed), 2);
    assert_int_equal(next(journal, &doomed), 0);
    journal_free(old);
    journal_free(journal);
}

/* ---- killed anywhere ---------------------------------------------------------------------------
 */

/* Reads and answers, every second one a request later, for ever. */
static void work(unsigned generation)
{
    struct journal *journal = journal_new(area, generation);
    static char request[JOURNAL_REQUEST_MAX];
    const struct fuse_in_header *in = (const struct fuse_in_header *)request;
    struct fuse_out_header out = {.len = sizeof out};
    struct iovec piece = {&out, sizeof out};
    bool doomed = false;
    uint64_t kept = 0;
    if (!journal)
        _exit(1);
    while (journal_next(journal, request, &doomed) > 0) {
        out.unique = in->unique;
        journal_write(journal, device, &piece, 1);
    }
    while (journal_read(journal, device, buffer, sizeof buffer) > 0) {
        uint64_t unique = ((const struct fuse_in_header *)buffer)->unique;
        if (!kept) {
            kept = unique;
            continue;
        }
        out.unique = unique;
        journal_write(journal, device, &piece, 1);
        out.unique = kept;
        journal_write(journal, device, &piece, 1);
        kept = 0;
    }
    _exit(0);
}

static pid_t start(unsigned generation)
{
    pid_t child = fork();
    if (child == 0)
        work(generation);
    return child;
}

/* An answer that comes, into the list of those that have come. */
static void note_answer(unsigned char *answered, size_t most)
{
    struct fuse_out_header out;
    ssize_t got = recv(kernel, &out, sizeof out, MSG_DONTWAIT);
    if (got == sizeof out && out.unique / 2 < most)
        answered[out.unique / 2] = 1;
}

static void a_kill_anywhere_loses_no_request(void **state)
{
    (void)state;
    enum { REQUESTS = 200000 };
    unsigned char *answered = calloc(REQUESTS, 1);
    uint64_t sent = 0;
    assert_non_null(answered);
    for (unsigned generation = 0; generation < KILLS; generation++) {
        pid_t child = start(generation);
        struct timespec now, end;
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += 300000L + generation * 61000L;
        do {
            struct fuse_in_header in = {.len = sizeof in, .opcode = FUSE_READ};
            in.unique = 2 * (sent + 1);
            if (sent + 1 < REQUESTS && send(kernel, &in, sizeof in, MSG_DONTWAIT) == sizeof in)
                sent++;
            note_answer(answered, REQUESTS);
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while (now.tv_sec * 1000000000L + now.tv_nsec < end.tv_sec * 1000000000L + end.tv_nsec);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    uint64_t last = 2 * (sent + 1);
    pid_t child = start(KILLS);
    struct fuse_in_header in = {.len = sizeof in, .opcode = FUSE_READ, .unique = last};
    for (size_t first = 1; first <= sent;) {
        if (in.unique <= last + 2 && send(kernel, &in, sizeof in, MSG_DONTWAIT) == sizeof in)
            in.unique += 2; /* two more, so that none is kept back */
        note_answer(answered, REQUESTS);
        while (first <= sent && answered[first])
            first++;
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    free(answered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_unanswered_is_taken_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_sent_again_has_a_number_of_its_own, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(poison_is_not_begun_by_a_third, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_killed_one_has_not_crashed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_than_there_is_room_for_goes_on_without, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_lands_late_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_kill_anywhere_loses_no_request, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
