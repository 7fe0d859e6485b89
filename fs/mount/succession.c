/* SPDX-License-Identifier: MIT */
#include "fs/mount/succession.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME "UNSHARD_SUCCESSION"

int succession_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) ? -errno : 0;
}

int succession_hand(int talk, enum succession_word word, uint32_t number, const int *handed,
                    unsigned count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(HANDED_COUNT * sizeof *handed)] = {0};
    struct succession_message text = {word, number};
    struct iovec piece = {&text, sizeof text};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof *handed);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof *handed);
        memcpy(CMSG_DATA(header), handed, count * sizeof *handed);
    }
    return sendmsg(talk, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int succession_say(int talk, enum succession_word word, uint32_t number)
{
    return succession_hand(talk, word, number, NULL, 0);
}

static void take_descriptors(struct msghdr *message, int handed[HANDED_COUNT])
{
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        handed[i] = -1;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at))
        if (at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS &&
            at->cmsg_len <= CMSG_LEN(HANDED_COUNT * sizeof *handed))
            memcpy(handed, CMSG_DATA(at), at->cmsg_len - CMSG_LEN(0));
}

int succession_hear(int talk, struct succession_message *out, int handed[HANDED_COUNT],
                    int timeout_ms)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(HANDED_COUNT * sizeof *handed)];
    struct iovec piece = {out, sizeof *out};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct pollfd entry = {.fd = talk, .events = POLLIN};
    int ready = poll(&entry, 1, timeout_ms);
    if (ready <= 0)
        return ready == 0 ? -ETIMEDOUT : -errno;
    ssize_t got = recvmsg(talk, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? -EINTR : -EPIPE;
    take_descriptors(&message, handed);
    if (got == sizeof *out)
        return 0;
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        if (handed[i] >= 0)
            close(handed[i]);
    return -EPIPE;
}

/* ---- the environment ---------------------------------------------------------------------------
 */

void succession_write(const struct succession *succession, char out[SUCCESSION_VARIABLE])
{
    const int *handed = succession->handed, *old = succession->old;
    snprintf(out, SUCCESSION_VARIABLE, NAME "=%d,%d,%d,%d,%d,%u,%d,%d,%d,%d,%d,%d",
             (int)succession->role, succession->talk, handed[HANDED_DEVICE], handed[HANDED_KEEP],
             handed[HANDED_SOURCE], succession->generation, old[0], old[1], old[2], old[3],
             (int)succession->daemon, succession->foreground);
}

size_t succession_descriptors(const struct succession *succession, int out[SUCCESSION_DESCRIPTORS])
{
    size_t count = 0;
    if (succession->talk >= 0)
        out[count++] = succession->talk;
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        if (succession->handed[i] >= 0)
            out[count++] = succession->handed[i];
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        if (succession->old[i] >= 0)
            out[count++] = succession->old[i];
    return count;
}

/* The next of the list; -1: there is none. */
static long take_number(char **at)
{
    char *end;
    long number = strtol(*at, &end, 10);
    bool none = end == *at;
    *at = end + (*end == ',');
    return none ? -1 : number;
}

/* A number of the list, of a descriptor of ours, or -1. */
static int take_descriptor(char **at)
{
    long number = take_number(at);
    if (number < 0 || number > 1 << 20 || fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    return (int)number;
}

enum succession_role succession_role(void)
{
    const char *text = getenv(NAME);
    long role = text ? strtol(text, NULL, 10) : 0;
    return role > ROLE_NONE && role <= ROLE_UPGRADED ? (enum succession_role)role : ROLE_NONE;
}

bool succession_take(struct succession *out)
{
    char *text = getenv(NAME);
    out->role = succession_role();
    if (!text || out->role == ROLE_NONE)
        return false;
    take_number(&text);
    out->talk = take_descriptor(&text);
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        out->handed[i] = take_descriptor(&text);
    out->generation = (uint32_t)take_number(&text);
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        out->old[i] = take_descriptor(&text);
    out->daemon = (pid_t)take_number(&text);
    out->foreground = take_number(&text) != 0;
    unsetenv(NAME);
    return true;
}

struct succession succession_none(enum succession_role role)
{
    struct succession none = {.role = role, .talk = -1};
    for (unsigned i = 0; i < HANDED_COUNT; i++)
        none.handed[i] = -1;
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        none.old[i] = -1;
    return none;
}
