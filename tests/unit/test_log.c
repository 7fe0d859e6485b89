/* SPDX-License-Identifier: MIT
 *
 * The log: nobody waits for who reads it, and nobody else says where it goes. */
#include "fs/host/log.c"
#include "fs/host/log_writer.c"
#include "fs/host/monotonic.c"
#include "fs/host/syslog_socket.c"
#include "fs/host/trusted_file.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#define BOUND_SECONDS 30

static char directory[] = "/tmp/unshard-log-XXXXXX";

static const char *in(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static size_t read_file(const char *path, char *out, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, out, capacity - 1);
    out[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return got > 0 ? (size_t)got : 0;
}

static void wait_for_words(const char *path, const char *words)
{
    static char text[1 << 20];
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (read_file(path, text, sizeof text), strstr(text, words) == NULL) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - begin.tv_sec > BOUND_SECONDS)
            fail_msg("not in %s: %s", path, words);
        usleep(1000);
    }
}

static unsigned count(const char *text, const char *words)
{
    unsigned found = 0;
    for (; (text = strstr(text, words)) != NULL; text++)
        found++;
    return found;
}

/* ---- where it goes ----------------------------------------------------------------------------
 */

static void give_away(const char *path)
{
    assert_int_equal(lchown(path, 12345, 12345), 0);
}

static int open_and_close(const char *path)
{
    int fd = trusted_file_append(path);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

static void make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void files_are_made_and_appended_to(void **state)
{
    (void)state;
    struct stat status;
    char text[16];
    for (unsigned i = 0; i < 2; i++) {
        int fd = trusted_file_append(in("new.log"));
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "x\n", 2), 2);
        close(fd);
    }
    assert_int_equal(read_file(in("new.log"), text, sizeof text), 4);
    assert_int_equal(stat(in("new.log"), &status), 0);
    assert_int_equal(status.st_mode & 0137, 0);
    assert_int_equal(open_and_close(in("none/new.log")), -ENOENT);
    assert_int_equal(open_and_close(directory), -EISDIR);
    assert_int_equal(open_and_close("/dev/null"), 0);
}

static void links_of_ones_own_are_followed(void **state)
{
    (void)state;
    char path[64];
    assert_int_equal(mkdir(in("real"), 0755), 0);
    assert_int_equal(symlink("real", in("folder")), 0);
    assert_int_equal(symlink("../real/target.log", in("real/link.log")), 0);
    assert_int_equal(open_and_close(in("folder/link.log")), 0);
    assert_int_equal(access(in("real/target.log"), F_OK), 0);
    assert_int_equal(symlink("loop", in("loop")), 0);
    assert_int_equal(open_and_close(in("loop")), -ELOOP);
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", pipe_fds[1]);
    assert_int_equal(open_and_close(path), 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void links_of_others_are_not(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    make(in("victim"));
    assert_int_equal(symlink("victim", in("planted.log")), 0);
    give_away(in("planted.log"));
    assert_int_equal(open_and_close(in("planted.log")), -ELOOP);
    assert_int_equal(symlink("/etc", in("planted")), 0);
    give_away(in("planted"));
    assert_int_equal(open_and_close(in("planted/x.log")), -ELOOP);
    assert_int_equal(access("/etc/x.log", F_OK), -1);
}

static void files_of_others_count_where_others_write(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(in("shared"), 0755), 0);
    make(in("shared/theirs.log"));
    give_away(in("shared/theirs.log"));
    make(in("shared/ours.log"));
    assert_int_equal(open_and_close(in("shared/theirs.log")), 0);
    assert_int_equal(chmod(in("shared"), 01777), 0);
    assert_int_equal(open_and_close(in("shared/ours.log")), 0);
    int result = open_and_close(in("shared/theirs.log"));
    assert_true(result == -EPERM || result == -EACCES); /* fs.protected_regular */
    assert_int_equal(chmod(in("shared"), 0755), 0);
    give_away(in("shared"));
    assert_int_equal(open_and_close(in("shared/theirs.log")), -EPERM);
    assert_int_equal(link(in("shared/ours.log"), in("shared/second")), 0);
    assert_int_equal(open_and_close(in("shared/ours.log")), -EPERM);
}

static void nothing_hangs_at_open(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_int_equal(mkfifo(in("fifo"), 0600), 0);
    assert_int_equal(open_and_close(in("fifo")), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", in("socket"));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(open_and_close(in("socket")), -ENXIO);
    close(fd);
}

/* ---- who waits --------------------------------------------------------------------------------
 */

static bool is_idle(void)
{
    pthread_mutex_lock(&writer.mutex);
    bool idle = writer.count == 0 && writer.lost == 0;
    pthread_mutex_unlock(&writer.mutex);
    return idle;
}

static void a_pipe_that_nobody_reads_holds_nobody(void **state)
{
    (void)state;
    enum { LINES = 4000 };
    static char text[1 << 20];
    unsigned lost = 0, number;
    size_t used = 0;
    ssize_t got = 1;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(log_writer_set(fds[1], NULL), 0);
    assert_int_equal(log_writer_start(), 0);
    for (unsigned i = 0; i < LINES; i++)
        log_line(LOG_NOTICE, "test", "event=line number=%u padding=%0100u", i, i);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while (got > 0 || !is_idle()) {
        got = read(fds[0], text + used, sizeof text - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    log_writer_end();
    while ((got = read(fds[0], text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)got;
    for (const char *at = text; (at = strstr(at, "lines-lost count=")) != NULL; at++) {
        assert_int_equal(sscanf(at, "lines-lost count=%u", &number), 1);
        lost += number;
    }
    assert_true(lost > 0);
    assert_int_equal(count(text, "event=line ") + lost, LINES);
    close(fds[0]);
}

static void the_end_waits_a_moment_only(void **state)
{
    (void)state;
    struct timespec begin, now;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(log_writer_set(fds[1], NULL), 0);
    assert_int_equal(log_writer_start(), 0);
    for (unsigned i = 0; i < 2000; i++)
        log_line(LOG_NOTICE, "test", "event=line padding=%0200u", i);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    log_writer_end();
    clock_gettime(CLOCK_MONOTONIC, &now);
    assert_true(now.tv_sec - begin.tv_sec < 3);
    assert_int_equal(writer.count, 0);
    close(fds[0]);
}

static void what_waits_for_the_thread_is_not_lost(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(log_open(in("early.log"), true), 0);
    log_line(LOG_NOTICE, "test", "event=early");
    log_writer_end();
    read_file(in("early.log"), text, sizeof text);
    assert_non_null(strstr(text, " notice test event=early\n"));
}

static void a_full_disk_is_told_of_later(void **state)
{
    (void)state;
    assert_int_equal(symlink("/dev/full", in("full.log")), 0);
    assert_int_equal(log_open(in("full.log"), true), 0);
    assert_int_equal(log_writer_start(), 0);
    log_line(LOG_NOTICE, "test", "event=lost");
    log_line(LOG_NOTICE, "test", "event=lost");
    for (bool lost = false; !lost; usleep(1000)) {
        pthread_mutex_lock(&writer.mutex);
        lost = writer.lost == 2;
        pthread_mutex_unlock(&writer.mutex);
    }
    assert_int_equal(unlink(in("full.log")), 0);
    assert_true(log_writer_reopen());
    wait_for_words(in("full.log"), "2 lines lost");
    log_line(LOG_NOTICE, "test", "event=there");
    log_writer_end();
    wait_for_words(in("full.log"), "event=there");
}

static void a_renamed_file_is_left(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(log_open(in("turn.log"), true), 0);
    assert_int_equal(log_writer_start(), 0);
    log_line(LOG_NOTICE, "test", "event=before");
    wait_for_words(in("turn.log"), "event=before");
    assert_int_equal(rename(in("turn.log"), in("turn.log.1")), 0);
    assert_int_equal(symlink("nowhere/at/all", in("turn.log")), 0);
    assert_true(log_writer_reopen());
    wait_for_words(in("turn.log.1"), "event=reopen-failed");
    assert_int_equal(unlink(in("turn.log")), 0);
    assert_true(log_writer_reopen());
    wait_for_words(in("turn.log"), "event=reopened");
    log_line(LOG_NOTICE, "test", "event=after");
    log_writer_end();
    read_file(in("turn.log.1"), text, sizeof text);
    assert_null(strstr(text, "event=after"));
    wait_for_words(in("turn.log"), "event=after");
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    log_writer_set(STDERR_FILENO, NULL);
    return system(command); /* NOLINT(cert-env33-c): of our own name */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_made_and_appended_to),
        cmocka_unit_test(links_of_ones_own_are_followed),
        cmocka_unit_test(links_of_others_are_not),
        cmocka_unit_test(files_of_others_count_where_others_write),
        cmocka_unit_test(nothing_hangs_at_open),
        cmocka_unit_test(a_pipe_that_nobody_reads_holds_nobody),
        cmocka_unit_test(the_end_waits_a_moment_only),
        cmocka_unit_test(what_waits_for_the_thread_is_not_lost),
        cmocka_unit_test(a_full_disk_is_told_of_later),
        cmocka_unit_test(a_renamed_file_is_left),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
