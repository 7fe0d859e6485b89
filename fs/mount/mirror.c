/* SPDX-License-Identifier: MIT */
#include "fs/mount/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/host/close_others.h"
#include "fs/host/write_whole.h"

/* A daemon that follows this one has written its first copies within that time. */
#define SUCCESSOR_MS 5000
#define LOOK_MS 50

/* Before each text on the pipe. */
struct header {
    uint32_t file; /* MIRROR_FILES: the mount ends, and nobody follows */
    uint64_t length;
};

/* Which file the last copy is. */
struct written {
    dev_t device;
    ino_t inode; /* 0: there is none */
};

/* ---- the writer --------------------------------------------------------------------------------
 */

static bool read_all(int fd, void *data, size_t length)
{
    char *at = data;
    while (length > 0) {
        ssize_t count = read(fd, at, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        at += count;
        length -= (size_t)count;
    }
    return true;
}

/* A new file beside the path, then renamed over it: readers see the old or the new, never a part.
 * The name is fixed, so that a writer that was killed leaves no more than one behind. */
static int replace(const char *path, const char *text, size_t length, struct written *written)
{
    struct stat about = {0};
    char temporary[4200];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return -ENAMETOOLONG;
    if (unlink(temporary) && errno != ENOENT)
        return -errno;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    int result = write_whole(fd, text, length);
    if (!result && fstat(fd, &about))
        result = -errno;
    if (close(fd) && !result)
        result = -errno;
    if (!result && rename(temporary, path))
        result = -errno;
    if (result)
        unlink(temporary);
    else
        *written = (struct written){about.st_dev, about.st_ino};
    return result;
}

static bool is_ours(const char *path, const struct written *written)
{
    struct stat about;
    return written->inode && stat(path, &about) == 0 && about.st_dev == written->device &&
           about.st_ino == written->inode;
}

/* What the files say is true no more. The daemon was killed, unless the mount ends: then another
 * one may follow and put its own in their place. */
static void remove_files(const char *const paths[MIRROR_FILES],
                         const struct written written[MIRROR_FILES], bool mount_ends)
{
    for (int waited = 0; !mount_ends && waited < SUCCESSOR_MS; waited += LOOK_MS) {
        bool ours = false;
        for (uint32_t file = 0; file < MIRROR_FILES; file++)
            ours |= is_ours(paths[file], &written[file]);
        if (!ours)
            return;
        poll(NULL, 0, LOOK_MS);
    }
    for (uint32_t file = 0; file < MIRROR_FILES; file++)
        if (is_ours(paths[file], &written[file]))
            unlink(paths[file]);
}

static void report(int fd, uint32_t file, int result, int *last)
{
    struct mirror_problem problem = {.file = file, .error = -result};
    if (result == *last)
        return;
    *last = result;
    if (write(fd, &problem, sizeof problem) < 0)
        errno = 0; /* nobody listens any more */
}

static void run(const char *const paths[MIRROR_FILES], int fd, int problems)
{
    struct header header;
    int last[MIRROR_FILES] = {0};
    struct written written[MIRROR_FILES] = {{0}};
    bool mount_ends = false;
    while (read_all(fd, &header, sizeof header)) {
        mount_ends = header.file >= MIRROR_FILES;
        if (mount_ends)
            break;
        char *text = malloc(header.length + 1);
        if (!text || !read_all(fd, text, header.length)) {
            free(text);
            break;
        }
        int result = replace(paths[header.file], text, header.length, &written[header.file]);
        report(problems, header.file, result, &last[header.file]);
        free(text);
    }
    remove_files(paths, written, mount_ends);
}

static void become_writer(const char *const paths[MIRROR_FILES], int fd, int problems)
{
    /* A signal to the whole group is for the daemon. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "unshard-mirror");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int standard = 0; standard <= 2 && null >= 0; standard++)
        dup2(null, standard);
    close_others(3, fd, problems);
    if (chdir("/"))
        errno = 0; /* stays where it is */
    run(paths, fd, problems);
}

/* ---- the daemon's side -------------------------------------------------------------------------
 */

static void close_pair(const int ends[2])
{
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
}

int mirror_start(struct mirror *mirror, const char *const paths[MIRROR_FILES])
{
    int texts[2] = {-1, -1}, problems[2] = {-1, -1};
    *mirror = (struct mirror){.fd = -1, .problems = -1};
    pid_t child = -1;
    if (pipe2(texts, O_CLOEXEC) == 0 && pipe2(problems, O_CLOEXEC | O_NONBLOCK) == 0)
        child = fork();
    if (child == 0) {
        become_writer(paths, texts[0], problems[1]);
        _exit(0);
    }
    if (child < 0) {
        int saved = errno;
        close_pair(texts);
        close_pair(problems);
        return -saved;
    }
    close(texts[0]);
    close(problems[1]);
    fcntl(texts[1], F_SETFL, O_NONBLOCK);
    *mirror = (struct mirror){.process = child, .fd = texts[1], .problems = problems[0]};
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sends what the pipe takes until `end`. 0: all is sent. */
static int send_rest(struct mirror *mirror, int64_t end)
{
    while (mirror->unsent_offset < mirror->unsent_length) {
        ssize_t count = write(mirror->fd, mirror->unsent + mirror->unsent_offset,
                              mirror->unsent_length - mirror->unsent_offset);
        if (count >= 0) {
            mirror->unsent_offset += (size_t)count;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int64_t left = end - now_ms();
        struct pollfd entry = {.fd = mirror->fd, .events = POLLOUT};
        if (left <= 0)
            return -EAGAIN;
        poll(&entry, 1, (int)left);
    }
    free(mirror->unsent);
    mirror->unsent = NULL;
    mirror->unsent_length = mirror->unsent_offset = 0;
    return 0;
}

int mirror_ready(struct mirror *mirror)
{
    int held = 0, result = send_rest(mirror, now_ms());
    if (!result && ioctl(mirror->fd, FIONREAD, &held) == 0 && held > 0)
        result = -EAGAIN;
    return result;
}

int mirror_write(struct mirror *mirror, uint32_t file, const char *text, size_t length,
                 int timeout_ms)
{
    struct header header = {.file = file, .length = length};
    int64_t end = now_ms() + timeout_ms;
    int result = send_rest(mirror, now_ms());
    if (result)
        return result;
    mirror->unsent = malloc(sizeof header + length);
    if (!mirror->unsent)
        return -ENOMEM;
    memcpy(mirror->unsent, &header, sizeof header);
    memcpy(mirror->unsent + sizeof header, text, length);
    mirror->unsent_length = sizeof header + length;
    result = send_rest(mirror, end);
    return result == -EAGAIN ? 0 : result; /* taken: the rest goes with the next text */
}

bool mirror_next_problem(struct mirror *mirror, struct mirror_problem *out)
{
    return read(mirror->problems, out, sizeof *out) == (ssize_t)sizeof *out;
}

void mirror_stop(struct mirror *mirror, int timeout_ms)
{
    const struct header last = {.file = MIRROR_FILES};
    if (mirror->process <= 0)
        return;
    if (!mirror->unsent && write(mirror->fd, &last, sizeof last) < 0)
        errno = 0; /* it is full, or nobody reads it */
    close(mirror->fd);
    close(mirror->problems);
    free(mirror->unsent);
    int process = pidfd_open(mirror->process, 0);
    struct pollfd entry = {.fd = process, .events = POLLIN};
    if (process >= 0 && poll(&entry, 1, timeout_ms) == 0)
        kill(mirror->process, SIGKILL);
    waitpid(mirror->process, NULL, WNOHANG);
    if (process >= 0)
        close(process);
    mirror->process = 0;
}
