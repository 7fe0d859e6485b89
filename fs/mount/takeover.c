/* SPDX-License-Identifier: MIT */
#include "fs/mount/takeover.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/log.h"
#include "fs/kernel/inode_table.h"
#include "fs/kernel/journal.h"
#include "fs/kernel/reattaching.h"
#include "fs/kernel/session.h"

#define AGAIN_MS 50
/* For tests: as on a kernel that cannot send again. */
#define NO_RESEND "UNSHARD_TEST_NO_RESEND"

static void answer_all(struct filesystem *filesystem)
{
    _Alignas(uint64_t) char request[JOURNAL_REQUEST_MAX];
    bool doomed;
    size_t length;
    while ((length = journal_next(filesystem->journal, request, &doomed)) > 0) {
        if (!doomed) {
            session_process(filesystem, request, length);
            continue;
        }
        log_line(LOG_ERR, "mount",
                 "event=poison message=\"two daemons died while they worked on a request; it is "
                 "answered with an error\"");
        session_refuse(filesystem, request, EIO);
    }
}

/* Waits for a while, or for the end of those that are left. true: there are none. */
static bool all_are_gone(struct takeover *takeover, bool *stopped)
{
    struct pollfd entries[1 + SUCCESSION_OLD] = {{.fd = takeover->stop, .events = POLLIN}};
    bool left = false;
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        entries[1 + i] = (struct pollfd){.fd = takeover->old[i], .events = POLLIN};
    poll(entries, 1 + SUCCESSION_OLD, AGAIN_MS);
    *stopped = entries[0].revents != 0;
    for (unsigned i = 0; i < SUCCESSION_OLD; i++) {
        if (takeover->old[i] >= 0 && entries[1 + i].revents) {
            close(takeover->old[i]);
            takeover->old[i] = -1;
        }
        left |= takeover->old[i] >= 0;
    }
    return !left;
}

static void send_again(struct takeover *takeover)
{
    if (takeover->sends_again)
        takeover->sends_again = journal_send_again(session_descriptor(takeover->filesystem));
}

static void *take_over(void *argument)
{
    struct takeover *takeover = argument;
    struct filesystem *filesystem = takeover->filesystem;
    bool stopped = false, gone = false;
    answer_all(filesystem);
    reattaching_begin(filesystem);
    while (!gone && !stopped) {
        gone = all_are_gone(takeover, &stopped);
        answer_all(filesystem);
        send_again(takeover);
    }
    if (!stopped)
        inode_table_ask(filesystem->inodes);
    return NULL;
}

int takeover_start(struct takeover *takeover, struct filesystem *filesystem,
                   const int old[SUCCESSION_OLD])
{
    takeover->filesystem = filesystem;
    memcpy(takeover->old, old, sizeof takeover->old);
    takeover->sends_again = getenv(NO_RESEND) == NULL;
    takeover->stop = eventfd(0, EFD_CLOEXEC);
    if (takeover->stop < 0)
        return -errno;
    int result = pthread_create(&takeover->thread, NULL, take_over, takeover);
    takeover->runs = result == 0;
    return -result;
}

void takeover_stop(struct takeover *takeover)
{
    if (!takeover->filesystem)
        return;
    if (takeover->runs && eventfd_write(takeover->stop, 1) == 0)
        pthread_join(takeover->thread, NULL);
    if (takeover->stop >= 0)
        close(takeover->stop);
    for (unsigned i = 0; i < SUCCESSION_OLD; i++)
        if (takeover->old[i] >= 0)
            close(takeover->old[i]);
    takeover->filesystem = NULL;
}
