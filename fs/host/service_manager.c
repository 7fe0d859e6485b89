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
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_GIVEN 3 /* SD_LISTEN_FDS_START */
#define MOST_GIVEN 64
#define BARRIER_MS 5000
#define PATIENCE_SECONDS 1
#define STATE_BYTES 128

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

/* With duplicates of the descriptors. patient: waits a moment for a manager that does not listen
 * just now. 0 or a negative errno. */
static int send_to_manager(const char *state, const int *fds, unsigned count, bool patient)
{
    struct sockaddr_un address;
    socklen_t length;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(SERVICE_MANAGER_MOST * sizeof *fds)] = {0};
    struct iovec text = {(char *)state, strlen(state)};
    struct msghdr message = {.msg_name = &address, .msg_iov = &text, .msg_iovlen = 1};
    int result = address_of_manager(&address, &length);
    if (result)
        return result;
    message.msg_namelen = length;
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
    }
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sender < 0)
        return -errno;
    struct timeval most = {.tv_sec = PATIENCE_SECONDS};
    setsockopt(sender, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    if (sendmsg(sender, &message, MSG_NOSIGNAL | (patient ? 0 : MSG_DONTWAIT)) < 0)
        result = -errno;
    close(sender);
    return result;
}

void service_manager_tell(const char *state)
{
    send_to_manager(state, NULL, 0, false);
}

/* Until the manager has worked through what was sent: it then closes what comes with a barrier. It
 * takes no word of a process that has ended meanwhile. */
static int wait_for_manager(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    int result = send_to_manager("BARRIER=1", &ends[1], 1, false);
    close(ends[1]);
    struct pollfd entry = {.fd = ends[0]};
    int ready = result ? 0 : poll(&entry, 1, BARRIER_MS);
    if (!result && ready <= 0)
        result = ready == 0 ? -ETIMEDOUT : -errno;
    close(ends[0]);
    return result;
}

static int send_to_keep(const char *name, const int *fds, unsigned count)
{
    char state[STATE_BYTES];
    if (count > SERVICE_MANAGER_MOST)
        return -E2BIG;
    snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s", name);
    return send_to_manager(state, fds, count, true);
}

int service_manager_keep(const char *name, int fd, struct unshard_error *error)
{
    int result = send_to_keep(name, &fd, 1);
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

int service_manager_leave(const char *name, const int *fds, unsigned count)
{
    return send_to_keep(name, fds, count);
}

void service_manager_drop(const char *name)
{
    char state[STATE_BYTES];
    snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    send_to_manager(state, NULL, 0, true);
}

static bool is_this_process(const char *variable)
{
    const char *process = getenv(variable);
    return process && strtol(process, NULL, 10) == (long)getpid();
}

/* The variables are inherited by what the service starts, and mean the process that the manager has
 * started. */
bool service_manager_keeps(void)
{
    const char *most = getenv("FDSTORE");
    return most && strtol(most, NULL, 10) > 0 && is_this_process("SYSTEMD_EXEC_PID");
}

/* ---- what it gives -----------------------------------------------------------------------------
 */

/* The kernel reports an error on the descriptor of a mount that has ended. */
static bool is_alive(int fd)
{
    struct pollfd entry = {.fd = fd};
    return poll(&entry, 1, 0) == 0;
}

/* The number of the next of the names that colons separate, or count: it is none of these. */
static unsigned next_name(const char **at, const char *const *names, unsigned count)
{
    size_t length = strcspn(*at, ":");
    unsigned found = 0;
    while (found < count &&
           (strlen(names[found]) != length || strncmp(names[found], *at, length) != 0))
        found++;
    *at += length + ((*at)[length] == ':');
    return found;
}

void service_manager_given(const char *const *names, unsigned count,
                           void (*take)(void *context, unsigned name, int fd), void *context)
{
    const char *number = getenv("LISTEN_FDS"), *at = getenv("LISTEN_FDNAMES");
    long given = number && at && is_this_process("LISTEN_PID") ? strtol(number, NULL, 10) : 0;
    for (int fd = FIRST_GIVEN; fd < FIRST_GIVEN + given && fd < FIRST_GIVEN + MOST_GIVEN; fd++) {
        unsigned name = next_name(&at, names, count);
        if (name == count || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            continue;
        if (is_alive(fd))
            take(context, name, fd);
        else
            close(fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}
