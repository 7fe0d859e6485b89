/* SPDX-License-Identifier: MIT
 *
 * What is said to a service manager, left with it and given by it. */
#include "fs/host/service_manager.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST = SERVICE_MANAGER_MOST };

struct manager {
    char folder[32];
    int socket;
    char text[256];
    int fds[MOST];
    unsigned count;
};

static int begin(void **state)
{
    struct manager *manager = calloc(1, sizeof *manager);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(manager->folder, sizeof manager->folder, "/tmp/unshard-test-XXXXXX");
    assert_non_null(mkdtemp(manager->folder));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", manager->folder);
    manager->socket = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(bind(manager->socket, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    *state = manager;
    return 0;
}

static int end(void **state)
{
    struct manager *manager = *state;
    unlink(getenv("NOTIFY_SOCKET"));
    rmdir(manager->folder);
    close(manager->socket);
    unsetenv("NOTIFY_SOCKET");
    free(manager);
    return 0;
}

static void receive(struct manager *manager)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof manager->fds)];
    struct iovec text = {manager->text, sizeof manager->text - 1};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t length = recvmsg(manager->socket, &message, 0);
    assert_true(length >= 0);
    manager->text[length] = '\0';
    manager->count = 0;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header)
        return;
    manager->count = (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof *manager->fds);
    memcpy(manager->fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
}

static void close_received(struct manager *manager)
{
    while (manager->count > 0)
        close(manager->fds[--manager->count]);
}

static bool same_file(int first, int second)
{
    struct stat one, other;
    return fstat(first, &one) == 0 && fstat(second, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

static void leaves_several_under_one_name(void **state)
{
    struct manager *manager = *state;
    const int fds[] = {open("/", O_RDONLY), open("/dev/null", O_RDONLY)};
    assert_int_equal(service_manager_leave("those", fds, 2), 0);
    receive(manager);
    assert_string_equal(manager->text, "FDSTORE=1\nFDNAME=those");
    assert_int_equal(manager->count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(same_file(manager->fds[i], fds[i]));
        close(fds[i]);
    }
    close_received(manager);
    const int many[MOST + 1] = {0};
    assert_int_equal(service_manager_leave("those", many, MOST + 1), -E2BIG);
}

static void drops_by_name(void **state)
{
    service_manager_drop("those");
    receive(*state);
    assert_string_equal(((struct manager *)*state)->text, "FDSTOREREMOVE=1\nFDNAME=those");
}

/* Closes what comes with a barrier, as a manager does. */
static void *answer(void *argument)
{
    struct manager *manager = argument;
    receive(manager);
    close_received(manager);
    receive(manager);
    close_received(manager);
    return NULL;
}

static void keeping_waits_for_the_manager(void **state)
{
    struct manager *manager = *state;
    struct unshard_error error;
    pthread_t thread;
    pthread_create(&thread, NULL, answer, manager);
    assert_int_equal(service_manager_keep("one", STDIN_FILENO, &error), 0);
    pthread_join(thread, NULL);
    assert_string_equal(manager->text, "BARRIER=1");
}

static void none_is_an_error_only_where_it_matters(void **state)
{
    (void)state;
    struct unshard_error error;
    const int fd = STDIN_FILENO;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(service_manager_keep("one", fd, &error), -ENOENT);
    assert_non_null(strstr(error.message, "NOTIFY_SOCKET"));
    assert_int_equal(service_manager_leave("one", &fd, 1), -ENOENT);
    service_manager_drop("one");
    service_manager_tell("READY=1");
}

/* One that does not read is waited for for a moment, and not for ever. */
static void a_manager_that_hangs_is_given_up(void **state)
{
    (void)state;
    const int fd = STDIN_FILENO;
    int result = 0;
    for (unsigned i = 0; i < 100000 && result == 0; i++)
        service_manager_tell("STATUS=");
    result = service_manager_leave("one", &fd, 1);
    assert_true(result == -EAGAIN || result == -EWOULDBLOCK);
}

static void says_whether_it_keeps(void **state)
{
    (void)state;
    char self[16];
    snprintf(self, sizeof self, "%d", (int)getpid());
    assert_false(service_manager_keeps());
    setenv("FDSTORE", "4", 1);
    assert_false(service_manager_keeps());
    setenv("SYSTEMD_EXEC_PID", "1", 1); /* whoever started this process was meant */
    assert_false(service_manager_keeps());
    setenv("SYSTEMD_EXEC_PID", self, 1);
    assert_true(service_manager_keeps());
    setenv("FDSTORE", "0", 1);
    assert_false(service_manager_keeps());
    unsetenv("FDSTORE");
    unsetenv("SYSTEMD_EXEC_PID");
}

/* ---- given -------------------------------------------------------------------------------------
 */

enum { FIRST = 3, GIVEN = 5 };

struct taken {
    unsigned count, names[GIVEN];
    int fds[GIVEN];
};

static void take(void *context, unsigned name, int fd)
{
    struct taken *taken = context;
    taken->names[taken->count] = name;
    taken->fds[taken->count++] = fd;
}

static struct taken given_as(const char *process, const char *number, const char *names)
{
    static const char *const wanted[] = {"a", "ab"};
    struct taken taken = {0};
    setenv("LISTEN_PID", process, 1);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    service_manager_given(wanted, 2, take, &taken);
    assert_null(getenv("LISTEN_PID"));
    assert_null(getenv("LISTEN_FDS"));
    assert_null(getenv("LISTEN_FDNAMES"));
    return taken;
}

/* The last test: these numbers may have been somebody's. */
static void takes_what_it_is_given(void **state)
{
    (void)state;
    char self[16];
    int ends[2];
    snprintf(self, sizeof self, "%d", (int)getpid());
    for (int fd = FIRST; fd < FIRST + GIVEN; fd++)
        assert_int_equal(dup2(STDIN_FILENO, fd), fd);
    assert_int_equal(pipe(ends), 0);
    close(ends[1]);
    assert_int_equal(dup2(ends[0], FIRST + 2), FIRST + 2); /* whose other end is gone */
    assert_int_equal(given_as("1", "5", "a:a:a:a:a").count, 0);
    assert_int_equal(given_as(self, "many", "a").count, 0);
    struct taken taken = given_as(self, "5", "ab:other:a:abc:a");
    assert_int_equal(taken.count, 2);
    assert_int_equal(taken.names[0], 1);
    assert_int_equal(taken.fds[0], FIRST);
    assert_int_equal(taken.names[1], 0);
    assert_int_equal(taken.fds[1], FIRST + 4);
    assert_int_equal(fcntl(FIRST, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(FIRST + 1, F_GETFD), 0);
    assert_int_equal(fcntl(FIRST + 2, F_GETFD), -1);
    /* Fewer names than descriptors. */
    taken = given_as(self, "2", "a");
    assert_int_equal(taken.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(leaves_several_under_one_name, begin, end),
        cmocka_unit_test_setup_teardown(drops_by_name, begin, end),
        cmocka_unit_test_setup_teardown(keeping_waits_for_the_manager, begin, end),
        cmocka_unit_test(none_is_an_error_only_where_it_matters),
        cmocka_unit_test_setup_teardown(a_manager_that_hangs_is_given_up, begin, end),
        cmocka_unit_test(says_whether_it_keeps),
        cmocka_unit_test(takes_what_it_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
