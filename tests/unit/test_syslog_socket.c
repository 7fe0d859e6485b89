/* SPDX-License-Identifier: MIT
 *
 * The log to a logger that does not read: nothing waits for it. */
#include "fs/host/syslog_socket.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static char directory[] = "/tmp/unshard-syslog-XXXXXX";
static char path[64];

static int listen_at(const char *where)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", where);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static bool receive(int fd, char *out, size_t capacity)
{
    ssize_t got = recv(fd, out, capacity - 1, 0);
    out[got > 0 ? got : 0] = '\0';
    return got > 0;
}

static void test_form(void **state)
{
    char line[4096];
    (void)state;
    int fd = listen_at(path);
    syslog_socket_send(LOG_ERR, "error engine event=x");
    assert_true(receive(fd, line, sizeof line));
    assert_memory_equal(line, "<27>", 4);
    assert_non_null(strstr(line, " unshard["));
    assert_non_null(strstr(line, "]: error engine event=x"));
    close(fd);
    unlink(path);
}

static void test_nobody_reads(void **state)
{
    char line[4096];
    (void)state;
    int fd = listen_at(path);
    unsigned sent = 0, received = 0;
    for (; atomic_load(&logger.lost) < 10; sent++) {
        assert_in_range(sent, 0, 1000000);
        syslog_socket_send(LOG_INFO, "info a line");
    }
    while (receive(fd, line, sizeof line))
        received++;
    assert_int_equal(received + 10, sent);
    syslog_socket_send(LOG_INFO, "info again");
    assert_true(receive(fd, line, sizeof line));
    assert_non_null(strstr(line, "info again"));
    assert_true(receive(fd, line, sizeof line));
    assert_non_null(strstr(line, "event=lines-lost count=10"));
    close(fd);
    unlink(path);
}

static void test_a_logger_that_comes_later(void **state)
{
    char line[4096];
    (void)state;
    syslog_socket_send(LOG_INFO, "info nobody there");
    int fd = listen_at(path);
    syslog_socket_send(LOG_INFO, "info somebody there");
    assert_true(receive(fd, line, sizeof line));
    assert_non_null(strstr(line, "somebody there"));
    assert_true(receive(fd, line, sizeof line));
    assert_non_null(strstr(line, "count=1"));
    close(fd);
    unlink(path);
}

static int setup_directory(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/log", directory);
    return syslog_socket_open(path);
}

static int remove_directory(void **state)
{
    (void)state;
    close(logger.fd);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_a_logger_that_comes_later),
    };
    return cmocka_run_group_tests(tests, setup_directory, remove_directory);
}
