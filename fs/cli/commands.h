/* SPDX-License-Identifier: MIT
 *
 * The commands of `unshard`. Each takes its arguments with argv[0] the command's name, prints what
 * it has to say and returns the exit status of the program. */
#ifndef FS_CLI_COMMANDS_H
#define FS_CLI_COMMANDS_H

enum exit_status {
    EXIT_STATUS_OK = 0,
    EXIT_STATUS_FAILED = 1,
    EXIT_STATUS_USAGE = 2,
    EXIT_STATUS_NOTHING_TO_CHECK = 2, /* of verify alone */
    EXIT_STATUS_UNWELL = 3, /* the answer was given, and it is that something has failed */
};

int command_run(int argc, char **argv);
int command_mount(int argc, char **argv);
int command_umount(int argc, char **argv);
int command_status(int argc, char **argv);
int command_wait(int argc, char **argv);
int command_evict(int argc, char **argv);
int command_warm(int argc, char **argv);
int command_upgrade(int argc, char **argv);
int command_list(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_ls(int argc, char **argv);
int command_export(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_seal(int argc, char **argv);

/* mount.unshard, as mount(8) calls it: SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t
 * TYPE]. -f means here that nothing is to be mounted. */
int command_mount_helper(int argc, char **argv);

#endif
