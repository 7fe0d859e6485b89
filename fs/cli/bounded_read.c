/* SPDX-License-Identifier: MIT */
#include "fs/cli/bounded_read.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/cli/status_client.h"
#include "fs/host/close_others.h"
#include "fs/host/monotonic.h"
#include "fs/host/write_whole.h"

/* What the child sends: this byte, then the JSON or why there is none. */
enum answer { ANSWER_JSON = 'j', ANSWER_FAILED = 'f' };

struct failure {
    int number;
    char message[1024];
};

static void run_child(const char *path, int fd)
{
    struct failure failure = {0};
    close_others(0, fd, -1); /* while it hangs, nobody waits for what we print */
    signal(SIGPIPE, SIG_IGN);
    char *json = status_client_read(path, failure.message, sizeof failure.message, &failure.number);
    char kind = json ? ANSWER_JSON : ANSWER_FAILED;
    if (write_whole(fd, &kind, 1) != 0)
        return;
    if (json)
        write_whole(fd, json, strlen(json));
    else
        write_whole(fd, &failure, sizeof failure);
}

void bounded_read_begin(struct bounded_read *read, const char *path)
{
    int ends[2];
    *read = (struct bounded_read){.process = -1, .fd = -1};
    if (pipe2(ends, O_CLOEXEC)) {
        read->error_number = errno;
        return;
    }
    fflush(NULL);
    read->process = fork();
    if (read->process == 0) {
        run_child(path, ends[1]);
        _exit(0);
    }
    read->error_number = errno;
    close(ends[1]);
    if (read->process < 0)
        close(ends[0]);
    else
        read->fd = ends[0];
}

/* Collects what the child sends until it closes the pipe. 0 or a positive errno. */
static int collect(int fd, int timeout_ms, FILE *out)
{
    int64_t end = monotonic_ms() + timeout_ms;
    char piece[65536];
    for (;;) {
        int64_t left = end - monotonic_ms();
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        int ready = poll(&entry, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno != EINTR)
            return errno;
        if (ready == 0 && left <= 0)
            return ETIMEDOUT;
        if (ready <= 0)
            continue;
        ssize_t count = read(fd, piece, sizeof piece);
        if (count == 0)
            return 0;
        if (count > 0)
            fwrite(piece, 1, (size_t)count, out);
        else if (errno != EINTR)
            return errno;
    }
}

/* What the child sends, all of it; *out is the caller's to free. 0 or a positive errno. */
static int receive(int fd, int timeout_ms, char **out, size_t *length)
{
    FILE *stream = open_memstream(out, length);
    if (!stream)
        return errno;
    int number = collect(fd, timeout_ms, stream);
    bool short_of_memory = ferror(stream) != 0;
    short_of_memory = fclose(stream) != 0 || short_of_memory;
    return number == 0 && short_of_memory ? ENOMEM : number;
}

/* What the child sent: JSON to return, or why there is none. */
static char *unpack(const char *answer, size_t length, char *message, size_t capacity,
                    int *error_number)
{
    struct failure failure;
    *error_number = EIO;
    snprintf(message, capacity, "the status could not be read");
    if (length == 0)
        return NULL;
    if (answer[0] == ANSWER_JSON) {
        char *json = strdup(answer + 1);
        *error_number = json ? 0 : ENOMEM;
        return json;
    }
    if (length != 1 + sizeof failure)
        return NULL;
    memcpy(&failure, answer + 1, sizeof failure);
    failure.message[sizeof failure.message - 1] = '\0';
    snprintf(message, capacity, "%s", failure.message);
    *error_number = failure.number;
    return NULL;
}

char *bounded_read_end(struct bounded_read *read, const char *path, int timeout_ms, char *message,
                       size_t capacity, int *error_number)
{
    char *answer = NULL, *json = NULL;
    size_t length = 0;
    int number = read->error_number;
    if (read->fd >= 0)
        number = receive(read->fd, timeout_ms, &answer, &length);
    *error_number = number;
    if (read->fd >= 0 && number == 0)
        json = unpack(answer, length, message, capacity, error_number);
    else if (number == ETIMEDOUT)
        snprintf(message, capacity,
                 "%s did not answer within %g s; if its daemon does not run on, 'unshard umount "
                 "--force %s' ends it",
                 path, timeout_ms / 1000.0, path);
    else
        snprintf(message, capacity, "%s: %s", path, strerror(number));
    free(answer);
    if (read->fd >= 0)
        close(read->fd);
    if (read->process > 0) {
        /* One that hangs in the mount dies when the mount lets it go; nobody waits for that. */
        kill(read->process, SIGKILL);
        waitpid(read->process, NULL, number == ETIMEDOUT ? WNOHANG : 0);
    }
    return json;
}

char *bounded_read_status(const char *path, int timeout_ms, char *message, size_t capacity,
                          int *error_number)
{
    struct bounded_read read;
    bounded_read_begin(&read, path);
    return bounded_read_end(&read, path, timeout_ms, message, capacity, error_number);
}
