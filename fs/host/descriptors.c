/* SPDX-License-Identifier: MIT */
#include "fs/host/descriptors.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union control {
    struct cmsghdr header; /* for its alignment */
    char space[CMSG_SPACE(DESCRIPTORS_MOST * sizeof(int))];
};

int descriptors_send(int socket, const int *fds, unsigned count, const void *data, size_t length)
{
    union control control;
    struct iovec text = {(void *)(uintptr_t)data, length};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    if (count > DESCRIPTORS_MOST)
        return -EINVAL;
    memset(&control, 0, sizeof control);
    if (count > 0) {
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return -errno;
    return (size_t)sent == length ? 0 : -EPIPE;
}

static void take(const struct msghdr *message, int fds[DESCRIPTORS_MOST])
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
}

int descriptors_receive(int socket, int fds[DESCRIPTORS_MOST], void *data, size_t length)
{
    union control control;
    struct iovec text = {data, length};
    struct msghdr message = {.msg_iov = &text,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    for (unsigned i = 0; i < DESCRIPTORS_MOST; i++)
        fds[i] = -1;
    ssize_t got;
    do
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    take(&message, fds);
    if ((size_t)got == length)
        return 0;
    for (unsigned i = 0; i < DESCRIPTORS_MOST; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return -EPIPE;
}
