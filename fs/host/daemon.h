/* SPDX-License-Identifier: MIT
 * Becoming a daemon, and telling whoever started it that the mount works. */
#ifndef FS_HOST_DAEMON_H
#define FS_HOST_DAEMON_H

#include <stdbool.h>

struct daemon_link {
    int fd;    /* to the waiting parent; -1 in the foreground */
    bool json; /* to be set before daemon_begin: whoever started it wants an object on standard
                  output, {"error": ...}, and none of the words on standard error */
};

/* Forks unless `foreground`. The parent does not return: it waits for daemon_ready or daemon_failed
 * and exits with 0 or 1, printing what daemon_failed was told. The child returns 0 in its own
 * session, without any inherited descriptor but the standard ones and `keep` (negative: none), and
 * is killed when the parent ends before daemon_outlives_parent. Call while the process has a single
 * thread. 0 or a negative errno. */
int daemon_begin(struct daemon_link *link, bool foreground, int keep);
/* From here on the end of the parent is noticed by daemon_ready, and the process can undo what it
 * has begun. To be called by the thread that called daemon_begin. false: it has ended already. */
bool daemon_outlives_parent(const struct daemon_link *link);
/* The mount works: lets the parent exit with 0, leaves standard input, output and error, and
 * changes to "/". false: the parent was ended while it waited, and nobody wants the mount any more.
 */
bool daemon_ready(struct daemon_link *link);
/* It does not: the parent prints the words, or the object that link->json asks for, and exits with
 * 1; in the foreground they are printed here. */
void daemon_failed(struct daemon_link *link, const char *words);

/* ---- the waiting parent, when it goes on ------------------------------------------------------
 */

#define DAEMON_WORDS_CAPACITY 4096

/* Waits for the daemon at the other end of the link to call daemon_ready or daemon_failed. false:
 * it did not come up; then words are what the latter was told, or empty when it has ended without.
 */
bool daemon_wait(const struct daemon_link *link, char words[DAEMON_WORDS_CAPACITY]);
/* After daemon_wait: this process does want the mount. false: the daemon has ended meanwhile. */
bool daemon_accept(const struct daemon_link *link);

#endif
