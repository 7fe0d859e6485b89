/* SPDX-License-Identifier: MIT
 * The FUSE session: mounting, the loop that answers requests, unmounting. */
#ifndef FS_KERNEL_SESSION_H
#define FS_KERNEL_SESSION_H

#include "fs/kernel/filesystem.h"

struct session_options {
    const char *mountpoint; /* canonical */
    const char *fsname;
    bool allow_other, allow_root;
};

/* Makes the session and mounts it. Requests are answered once session_loop runs. On success
 * filesystem->session is set, to be ended by session_unmount and session_close. */
int session_open(struct filesystem *filesystem, const struct session_options *options,
                 struct unshard_error *error);
/* The same for a mount that an earlier process has made and served, by the descriptor of
 * /dev/fuse, which becomes the session's. filesystem->greeting knows how the kernel was greeted.
 * -EPROTO: this program would not serve as was agreed then. */
int session_adopt(struct filesystem *filesystem, const struct session_options *options, int device,
                  struct unshard_error *error);
/* Answers a request that an earlier process has left, as if it had just been read. Any thread. */
void session_process(struct filesystem *filesystem, void *request, size_t length);
/* Answers one with an error. Any thread. */
void session_refuse(struct filesystem *filesystem, const void *request, int error);
/* Whether the kernel has an inode of this number (inode_is_known; context: the filesystem). May
 * wait for one that is just ending. */
bool session_knows(void *filesystem, uint64_t nodeid);
/* The descriptor of /dev/fuse of a session that has been opened; the session owns it. */
int session_descriptor(const struct filesystem *filesystem);
/* Answers requests until the file system is unmounted or session_exit is called. The main thread's
 * job. 0 or a negative errno. */
int session_loop(struct filesystem *filesystem);
/* Makes the loop end; it notices when the thread in session_loop gets a signal. Any thread. */
void session_exit(struct filesystem *filesystem);
/* Closes the connection and unmounts, if that has not happened yet. Not while stores are running.
 */
void session_unmount(struct filesystem *filesystem);
/* Frees the session. No request may be unanswered. */
void session_close(struct filesystem *filesystem);

#endif
