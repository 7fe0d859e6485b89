/* SPDX-License-Identifier: MIT
 *
 * Lines for the system's log that are lost rather than waited for. syslog(3) waits, without end,
 * while the receiver's queue is full: a logger that hangs would hang every mount with it. */
#ifndef FS_HOST_SYSLOG_SOCKET_H
#define FS_HOST_SYSLOG_SOCKET_H

/* path: the socket of the logger, "/dev/log". It need not be there yet. 0 or a negative errno. Call
 * before there are threads. */
int syslog_socket_open(const char *path);

/* Sends a line as a datagram, with program name, process number and the facility "daemon" (RFC
 * 3164). When that is not possible at once the line is dropped; the next one that gets through is
 * followed by a line that tells how many were. Never blocks. Thread-safe. */
void syslog_socket_send(int priority, const char *line);

#endif
