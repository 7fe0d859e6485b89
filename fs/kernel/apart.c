/* SPDX-License-Identifier: MIT */
#include "fs/kernel/apart.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/host/close_others.h"

static _Thread_local struct {
    bool tried;
    int clone; /* valid when it was made: else 0 */
} apart;

static int make_clone(int device)
{
    uint32_t of = (uint32_t)device;
    int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (clone < 0)
        return -1;
    if (ioctl(clone, FUSE_DEV_IOC_CLONE, &of) == 0)
        return clone;
    close(clone);
    return -1;
}

/* ThreadSanitizer takes the same number for the same descriptor, whichever table it is in. */
static bool leave_table(void)
{
#ifdef __SANITIZE_THREAD__
    return false;
#else
    return unshare(CLONE_FILES) == 0;
#endif
}

/* Where there is no clone to be had the thread stores as the others do: it is a precaution. */
void apart_go(int device)
{
    if (apart.tried)
        return;
    apart.tried = true;
    if (!leave_table())
        return;
    int clone = make_clone(device), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd); /* somebody may wait for the end of what was there */
    close_others(STDERR_FILENO + 1, clone < 0 ? device : clone, -1);
    apart.clone = clone;
}

int apart_device(int device)
{
    return apart.clone > 0 ? apart.clone : device;
}

bool apart_is(void)
{
    return apart.clone > 0;
}
