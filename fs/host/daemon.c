/* SPDX-License-Identifier: MIT */
#include "fs/host/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/host/close_others.h"

#define READY_BYTE '\001' /* cannot begin a message */
#define ACCEPT_MS 5000

static const char no_error[] = "{\"error\":null}";
static const char silent_end[] = "the daemon ended before the mount worked; its log may say why";

/* The result of the command that started the daemon. */
static void print_failure(const struct daemon_link *link, const char *words)
{
    if (!link->json)
        fprintf(stderr, "unshard: %s\n", *words ? words : silent_end);
    else if (*words)
        puts(words);
    else
        printf("{\"error\":{\"code\":\"daemon-died\",\"message\":\"%s\",\"offset\":null,"
               "\"errno\":null}}\n",
               silent_end);
    fflush(stdout);
}

bool daemon_wait(const struct daemon_link *link, char words[DAEMON_WORDS_CAPACITY])
{
    size_t used = 0;
    while (used < DAEMON_WORDS_CAPACITY - 1) {
        ssize_t got = read(link->fd, words + used, DAEMON_WORDS_CAPACITY - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
        if (words[0] == READY_BYTE)
            return true;
    }
    words[used] = '\0';
    return false;
}

bool daemon_accept(const struct daemon_link *link)
{
    char accepted = READY_BYTE;
    return write(link->fd, &accepted, 1) == 1;
}

/* From here on no signal but SIGKILL ends the process, so the daemon may take it that the command
 * succeeds. */
static void accept_and_exit(const struct daemon_link *link)
{
    if (link->json && (puts(no_error) < 0 || fflush(stdout)))
        _exit(1);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    _exit(daemon_accept(link) ? 0 : 1);
}

/* In the parent: waits for the daemon's word and ends the process. */
static void wait_and_exit(const struct daemon_link *link)
{
    char words[DAEMON_WORDS_CAPACITY];
    if (daemon_wait(link, words))
        accept_and_exit(link);
    print_failure(link, words);
    _exit(1);
}

/* The parent holds the other end for as long as it waits. */
static bool is_waited_for(const struct daemon_link *link)
{
    struct pollfd entry = {.fd = link->fd};
    return poll(&entry, 1, 0) == 0;
}

/* Whoever interrupts `unshard mount` does not want it to go on unseen and to mount later. A process
 * that hangs in its source cannot be killed yet, but it does nothing more when the source returns.
 */
static void end_with_parent(const struct daemon_link *link)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!is_waited_for(link)) /* it ended before it was asked for */
        _exit(1);
}

bool daemon_outlives_parent(const struct daemon_link *link)
{
    prctl(PR_SET_PDEATHSIG, 0);
    return link->fd < 0 || is_waited_for(link);
}

int daemon_begin(struct daemon_link *link, bool foreground, int keep)
{
    int ends[2];
    link->fd = -1;
    if (foreground)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        int saved = errno;
        close(ends[0]);
        close(ends[1]);
        return -saved;
    }
    if (child > 0) {
        close(ends[1]);
        link->fd = ends[0];
        wait_and_exit(link);
    }
    link->fd = ends[1];
    close_others(STDERR_FILENO + 1, link->fd, keep);
    end_with_parent(link);
    setsid();
    return 0;
}

static void leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

/* Whether the parent has heard that the mount works, and was not ended just then. One that is
 * stopped hears it later. */
static bool is_accepted(int fd)
{
    char accepted;
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    int ready = poll(&entry, 1, ACCEPT_MS);
    return ready == 0 || (ready > 0 && read(fd, &accepted, 1) == 1);
}

bool daemon_ready(struct daemon_link *link)
{
    bool wanted = true;
    if (chdir("/"))
        errno = 0; /* stays where it is, which is allowed */
    if (link->fd >= 0) {
        char ready = READY_BYTE;
        leave_terminal();
        wanted = write(link->fd, &ready, 1) == 1 && is_accepted(link->fd);
        close(link->fd);
        link->fd = -1;
    }
    return wanted;
}

void daemon_failed(struct daemon_link *link, const char *words)
{
    if (link->fd < 0) {
        print_failure(link, words);
        return;
    }
    if (write(link->fd, words, strlen(words)) < 0)
        errno = 0; /* nobody waits any more */
    close(link->fd);
    link->fd = -1;
}
