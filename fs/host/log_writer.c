/* SPDX-License-Identifier: MIT */
#include "fs/host/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/host/monotonic.h"
#include "fs/host/trusted_file.h"

#define MOST_LINES 512u
#define SLICE_MS 100
#define END_MS 500u

struct line {
    size_t length;
    char text[];
};

static struct {
    char *path; /* const after log_writer_set */
    /* Of whoever writes: the thread, or log_writer_end without one. */
    int fd;
    bool regular; /* writing does not wait for a reader */
    bool torn;    /* a line was written in part */
    bool failing; /* the last one could not be written */

    pthread_mutex_t mutex; /* a leaf; of all below */
    pthread_cond_t changed, drained;
    struct line *lines[MOST_LINES]; /* a ring */
    unsigned first, count, lost;
    bool runs, reopen, ending;
    pthread_t thread;
} writer = {
    .fd = STDERR_FILENO, .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* ---- writing -----------------------------------------------------------------------------------
 */

static bool is_ending(void)
{
    pthread_mutex_lock(&writer.mutex);
    bool ending = writer.ending;
    pthread_mutex_unlock(&writer.mutex);
    return ending;
}

/* A pipe or terminal that nobody reads is waited for in slices, but not in the end. */
static bool wait_writable(void)
{
    struct pollfd entry = {.fd = writer.fd, .events = POLLOUT};
    while (poll(&entry, 1, SLICE_MS) == 0)
        if (is_ending())
            return false;
    return true;
}

static bool write_all(const char *text, size_t length)
{
    for (size_t done = 0; done < length;) {
        if (!writer.regular && !wait_writable())
            return false;
        ssize_t wrote = write(writer.fd, text + done, length - done);
        if (wrote < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (wrote <= 0) {
            writer.torn = writer.torn || done > 0;
            return false;
        }
        done += (size_t)wrote;
    }
    writer.torn = false;
    return true;
}

static bool write_line(const char *text, size_t length)
{
    writer.failing = (writer.torn && !write_all("\n", 1)) || !write_all(text, length);
    return !writer.failing;
}

static void add_lost(unsigned count)
{
    pthread_mutex_lock(&writer.mutex);
    writer.lost += count;
    pthread_mutex_unlock(&writer.mutex);
}

static void write_lost(void)
{
    char line[LOG_LINE_CAPACITY];
    pthread_mutex_lock(&writer.mutex);
    unsigned lost = writer.lost;
    writer.lost = 0;
    pthread_mutex_unlock(&writer.mutex);
    if (lost == 0)
        return;
    size_t length = log_compose(line, LOG_WARNING, "log",
                                "event=lines-lost count=%u message=\"%u lines lost\"", lost, lost);
    if (!write_line(line, length))
        add_lost(lost);
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static void take(int fd)
{
    struct stat status;
    if (writer.fd > STDERR_FILENO && writer.fd != fd)
        close(writer.fd);
    writer.fd = fd;
    writer.regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    writer.torn = writer.failing = false;
}

static void open_again(void)
{
    int fd = trusted_file_append(writer.path);
    if (fd < 0) {
        log_line(LOG_ERR, "log", "event=reopen-failed errno=%d message=\"%s\"", -fd,
                 log_open_reason(fd));
        return;
    }
    take(fd);
    log_line(LOG_NOTICE, "log", "event=reopened");
}

/* Takes and writes the next line. Caller holds writer.mutex, which is released meanwhile. In the
 * end nothing is waited for any more: then the first line that can't be written was the last. */
static void write_next(void)
{
    struct line *line = writer.lines[writer.first];
    writer.first = (writer.first + 1) % MOST_LINES;
    writer.count--;
    pthread_mutex_unlock(&writer.mutex);
    write_lost();
    bool written = write_line(line->text, line->length);
    free(line);
    pthread_mutex_lock(&writer.mutex);
    writer.lost += !written;
    while (!written && writer.ending && writer.count > 0)
        free(writer.lines[(writer.first + --writer.count) % MOST_LINES]);
}

static void *write_lines(void *argument)
{
    pthread_mutex_lock(&writer.mutex);
    while (!writer.ending || writer.count > 0) {
        if (writer.reopen) {
            writer.reopen = false;
            pthread_mutex_unlock(&writer.mutex);
            open_again();
            pthread_mutex_lock(&writer.mutex);
        } else if (writer.count > 0) {
            write_next();
            if (writer.count == 0)
                pthread_cond_signal(&writer.drained);
        } else if (writer.lost > 0 && !writer.failing) {
            pthread_mutex_unlock(&writer.mutex);
            write_lost();
            pthread_mutex_lock(&writer.mutex);
        } else {
            pthread_cond_wait(&writer.changed, &writer.mutex);
        }
    }
    writer.runs = false;
    pthread_cond_signal(&writer.drained);
    pthread_mutex_unlock(&writer.mutex);
    return argument;
}

int log_writer_set(int fd, const char *path)
{
    char *copy = path ? strdup(path) : NULL;
    if (path && !copy)
        return -ENOMEM;
    free(writer.path);
    writer.path = copy;
    take(fd);
    return 0;
}

void log_writer_put(const char *text, size_t length)
{
    struct line *line = malloc(sizeof *line + length);
    if (line) {
        line->length = length;
        memcpy(line->text, text, length);
    }
    pthread_mutex_lock(&writer.mutex);
    if (line && writer.count < MOST_LINES) {
        writer.lines[(writer.first + writer.count++) % MOST_LINES] = line;
        line = NULL;
    } else {
        writer.lost++;
    }
    if (writer.runs)
        pthread_cond_signal(&writer.changed);
    pthread_mutex_unlock(&writer.mutex);
    free(line);
}

int log_writer_start(void)
{
    sigset_t all, old;
    monotonic_condition_init(&writer.drained);
    writer.runs = true;
    writer.ending = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int result = pthread_create(&writer.thread, NULL, write_lines, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (result)
        writer.runs = false;
    return -result;
}

bool log_writer_reopen(void)
{
    if (!writer.path)
        return false;
    pthread_mutex_lock(&writer.mutex);
    writer.reopen = true;
    if (writer.runs)
        pthread_cond_signal(&writer.changed);
    pthread_mutex_unlock(&writer.mutex);
    return true;
}

/* Waits until the lines are written, or the thread has ended, for a moment. Caller holds
 * writer.mutex. */
static void wait_a_moment(bool until_ended)
{
    struct timespec deadline = monotonic_deadline(END_MS);
    int result = 0;
    while (writer.runs && (until_ended || writer.count > 0) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&writer.drained, &writer.mutex, &deadline);
}

/* The thread hangs with storage: it goes with the process. */
static void end_thread(void)
{
    wait_a_moment(false);
    writer.ending = true;
    pthread_cond_signal(&writer.changed);
    wait_a_moment(true);
    bool ended = !writer.runs;
    pthread_mutex_unlock(&writer.mutex);
    if (ended)
        pthread_join(writer.thread, NULL);
    else
        pthread_detach(writer.thread);
    pthread_mutex_lock(&writer.mutex);
}

void log_writer_end(void)
{
    pthread_mutex_lock(&writer.mutex);
    if (writer.runs)
        end_thread();
    writer.ending = true;
    while (!writer.runs && writer.count > 0)
        write_next();
    pthread_mutex_unlock(&writer.mutex);
}
