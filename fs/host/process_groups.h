/* SPDX-License-Identifier: MIT
 *
 * The supplementary groups of a process or thread, which the kernel tells nobody but by /proc. */
#ifndef FS_HOST_PROCESS_GROUPS_H
#define FS_HOST_PROCESS_GROUPS_H

#include <sys/types.h>

/* Of the one that asks for something as this user and group. *groups is the caller's to free, NULL
 * when there are none. 0; -ENOMEM; another negative errno: they are not to be found out. That is
 * so, too, when the number leads to somebody else here: it may be that of another PID namespace. */
int process_groups_read(pid_t process, uid_t uid, gid_t gid, gid_t **groups, unsigned *count);
/* The same from the text of /proc/PID/status. Pure. */
int process_groups_parse(const char *text, uid_t uid, gid_t gid, gid_t **groups, unsigned *count);

#endif
