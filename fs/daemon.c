/* SPDX-License-Identifier: MIT */
#include "fs/daemon.h"
#include "fs/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_BYTE '\001' /* cannot begin a message */

/* In the parent: waits for the daemon's word and ends the process. */
static void wait_and_exit(int fd)
{
    char message[1024];
    size_t used = 0;
    while (used < sizeof message - 1) {
        ssize_t got = read(fd, message + used, sizeof message - 1 - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        used += (size_t)got;
        if (message[0] == READY_BYTE)
            _exit(0);
    }
    message[used] = '\0';
    fprintf(stderr, "unshard: %s\n",
            used ? message : "the daemon ended before the mount worked; its log may say why");
    _exit(1);
}

int daemon_begin(struct daemon_link *link, bool foreground)
{
    int pipe_fds[2];
    link->fd = -1;
    if (foreground)
        return 0;
    if (pipe2(pipe_fds, O_CLOEXEC))
        return -errno;
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        int saved = errno;
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return -saved;
    }
    if (child > 0) {
        close(pipe_fds[1]);
        wait_and_exit(pipe_fds[0]);
    }
    close(pipe_fds[0]);
    link->fd = pipe_fds[1];
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

void daemon_ready(struct daemon_link *link)
{
    if (chdir("/"))
        errno = 0; /* stays where it is, which is allowed */
    if (link->fd >= 0) {
        char ready = READY_BYTE;
        leave_terminal();
        if (write(link->fd, &ready, 1) < 0)
            errno = 0; /* the parent was killed; the mount is wanted all the same */
        close(link->fd);
        link->fd = -1;
    }
    char state[64];
    snprintf(state, sizeof state, "READY=1\nMAINPID=%d", (int)getpid());
    service_manager_tell(state);
}

void daemon_failed(struct daemon_link *link, const char *message)
{
    if (link->fd < 0) {
        fprintf(stderr, "unshard: %s\n", message);
        return;
    }
    size_t length = strlen(message);
    if (write(link->fd, message, length) < 0)
        errno = 0; /* nobody waits any more */
    close(link->fd);
    link->fd = -1;
}
