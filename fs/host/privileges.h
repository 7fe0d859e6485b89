/* SPDX-License-Identifier: MIT
 *
 * What root's daemon gives up before it reads what others have written: headers, indexes and
 * pickles are hostile, and whoever finds a hole in their readers finds a process that can mount
 * and read files, and nothing else. */
#ifndef FS_HOST_PRIVILEGES_H
#define FS_HOST_PRIVILEGES_H

/* Keeps of all capabilities those to mount and unmount and to read and write files, in the bounding
 * set too; gains no privilege by a program any more; and has the kernel refuse, with EPERM, system
 * calls that are made to look into or change other processes and the kernel. For root only: others
 * have nothing to give up, and mount by fusermount3, which is set-user-ID. What the kernel or a
 * sandbox around does not let be given up is kept. Before the process has other threads: they and
 * its children inherit it. */
void privileges_drop(void);

#endif
