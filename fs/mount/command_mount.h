/* SPDX-License-Identifier: MIT
 * `unshard mount`. */
#ifndef FS_MOUNT_COMMAND_MOUNT_H
#define FS_MOUNT_COMMAND_MOUNT_H

/* Runs the command; argv[0] is its name. Returns the exit status: 0 when the mount worked (in the
 * background: works), 1 when it did not, 2 for bad arguments. */
int command_mount(int argc, char **argv);

#endif
