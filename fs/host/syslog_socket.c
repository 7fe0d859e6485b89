/* SPDX-License-Identifier: MIT */
#include "fs/host/syslog_socket.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define DATAGRAM_CAPACITY 2304 /* a line of the log, and what stands before it */

static struct {
    int fd;
    struct sockaddr_un address;
    atomic_uint lost;
} logger = {.fd = -1};

int syslog_socket_open(const char *path)
{
    logger.address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof logger.address.sun_path)
        return -ENAMETOOLONG;
    memcpy(logger.address.sun_path, path, strlen(path) + 1);
    logger.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return logger.fd < 0 ? -errno : 0;
}

/* Addressed anew each time, so that a logger that was started again is found. */
static int send_line(int priority, const char *line)
{
    char datagram[DATAGRAM_CAPACITY], when[32];
    struct tm parts;
    time_t now = time(NULL);
    localtime_r(&now, &parts);
    strftime(when, sizeof when, "%b %e %H:%M:%S", &parts);
    int length = snprintf(datagram, sizeof datagram, "<%d>%s unshard[%d]: %s",
                          LOG_DAEMON | (priority & LOG_PRIMASK), when, (int)getpid(), line);
    size_t size = (size_t)length < sizeof datagram ? (size_t)length : sizeof datagram - 1;
    ssize_t sent = sendto(logger.fd, datagram, size, MSG_DONTWAIT | MSG_NOSIGNAL,
                          (const struct sockaddr *)&logger.address, sizeof logger.address);
    return sent < 0 ? -errno : 0;
}

void syslog_socket_send(int priority, const char *line)
{
    char text[64];
    if (send_line(priority, line) != 0) {
        atomic_fetch_add(&logger.lost, 1);
        return;
    }
    unsigned lost = atomic_exchange(&logger.lost, 0);
    if (lost == 0)
        return;
    snprintf(text, sizeof text, "warning log event=lines-lost count=%u", lost);
    if (send_line(LOG_WARNING, text) != 0)
        atomic_fetch_add(&logger.lost, lost);
}
