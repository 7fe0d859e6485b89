/* SPDX-License-Identifier: MIT
 * A program that runs as if it had taken the place of this process, which still has something to
 * do when it has ended. */
#ifndef FS_HOST_SUPERVISE_H
#define FS_HOST_SUPERVISE_H

/* Becomes another program, found along PATH. Returns only when that fails: 127 when it is not
 * there, 126 when it cannot be run, having said so. */
int supervise_exec(char **command);

/* Runs a program as a child, and waits for its end. Signals that a process sends are passed on, for
 * it cannot be told whether they were sent to this process alone or to the whole group, whose
 * program then has them twice; those of the terminal reach both by themselves. It is stopped and
 * continued with the program, and the program dies with it. 0 and how it ended, as of waitpid, or a
 * negative errno. Only with a single thread and no other child that matters. */
int supervise(char **command, int *status);

/* Ends this process as a program has ended: with its exit status, or by the same signal. */
void supervise_end_like(int status) __attribute__((noreturn));

#endif
