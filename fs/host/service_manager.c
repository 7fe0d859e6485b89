/* SPDX-License-Identifier: MIT */
#include "fs/host/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Under which the manager keeps the descriptor. */
#define KEPT_NAME "unshard"
#define FIRST_GIVEN 3 /* SD_LISTEN_FDS_START */
#define MOST_GIVEN 64
#define BARRIER_MS 5000

/* 0 or a negative errno; -ENOENT: there is no manager. */
static int address_of_manager(struct sockaddr_un *address, socklen_t *length)
{
    const char *path = getenv("NOTIFY_SOCKET");
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address->sun_path)
        return -ENOENT;
    size_t size = strlen(path);
    memcpy(address->sun_path, path, size);
    if (path[0] == '@') /* an abstract socket: its name begins with a zero and is not terminated */
        address->sun_path[0] = '\0';
    else
        size++;
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return 0;
}

/* With a duplicate of fd, unless that is negative. 0 or a negative errno. */
static int send_to_manager(const char *state, int fd)
{
    struct sockaddr_un address;
    socklen_t length;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec text = {(char *)state, strlen(state)};
    struct msghdr message = {.msg_name = &address, .msg_iov = &text, .msg_iovlen = 1};
    int result = address_of_manager(&address, &length);
    if (result)
        return result;
    message.msg_namelen = length;
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sender < 0)
        return -errno;
    if (sendmsg(sender, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        result = -errno;
    close(sender);
    return result;
}

void service_manager_tell(const char *state)
{
    send_to_manager(state, -1);
}

/* Until the manager has worked through what was sent: it then closes what comes with a barrier. It
 * takes no word of a process that has ended meanwhile. */
static int wait_for_manager(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    int result = send_to_manager("BARRIER=1", ends[1]);
    close(ends[1]);
    struct pollfd entry = {.fd = ends[0]};
    int ready = result ? 0 : poll(&entry, 1, BARRIER_MS);
    if (!result && ready <= 0)
        result = ready == 0 ? -ETIMEDOUT : -errno;
    close(ends[0]);
    return result;
}

int service_manager_keep(int fd, struct unshard_error *error)
{
    int result = send_to_manager("FDSTORE=1\nFDNAME=" KEPT_NAME, fd);
    if (!result)
        result = wait_for_manager();
    if (result == -ENOENT)
        return unshard_error_set(
            error, "service-manager", ENOENT,
            "no service manager to leave the mount with: NOTIFY_SOCKET is not set");
    return result ? unshard_error_set(error, "service-manager", -result,
                                      "the service manager does not take the mount: %s",
                                      strerror(-result))
                  : 0;
}

/* Whether the n-th of the names, which colons separate, is ours. */
static bool is_named(const char *names, long n)
{
    for (; n > 0 && names; n--) {
        names = strchr(names, ':');
        names += names != NULL;
    }
    return names && !strncmp(names, KEPT_NAME, sizeof KEPT_NAME - 1) &&
           (names[sizeof KEPT_NAME - 1] == ':' || names[sizeof KEPT_NAME - 1] == '\0');
}

/* The kernel reports an error on the descriptor of a mount that has ended. */
static bool is_alive(int fd)
{
    struct pollfd entry = {.fd = fd};
    return poll(&entry, 1, 0) == 0;
}

int service_manager_given(void)
{
    const char *process = getenv("LISTEN_PID"), *number = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    int found = -1;
    if (!process || !number || !names || strtol(process, NULL, 10) != (long)getpid())
        return -1;
    long count = strtol(number, NULL, 10);
    for (long i = 0; i < count && i < MOST_GIVEN; i++) {
        int fd = FIRST_GIVEN + (int)i;
        if (!is_named(names, i) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            continue;
        if (found < 0 && is_alive(fd))
            found = fd;
        else
            close(fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return found;
}
