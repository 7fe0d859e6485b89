/* SPDX-License-Identifier: MIT
 *
 * Whether somebody is there to serve a mount, found out without waiting for him. */
#ifndef FS_HOST_SERVER_H
#define FS_HOST_SERVER_H

#include <sys/types.h>

enum server_state {
    SERVER_ANSWERS,
    SERVER_GONE,   /* the kernel knows: requests fail at once */
    SERVER_SILENT, /* no answer in time: stopped, overloaded, or dying and held up in that */
};

/* Asks the mount at `path` something that the kernel does not answer from its cache, in another
 * process, and waits for at most timeout_ms. */
enum server_state server_ask(const char *path, int timeout_ms);

/* The process named unshard that runs and holds the descriptor of a FUSE connection; 0: none that
 * we may look at. One that has been killed does not count, even while it cannot finish dying. Where
 * the kernel does not tell whose descriptor it is, any that holds one of /dev/fuse counts. */
pid_t server_of(unsigned connection);

#endif
