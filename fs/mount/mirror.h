/* SPDX-License-Identifier: MIT
 *
 * Copies of texts in files, replaced by renaming, written by another process. That removes them
 * when the mount ends; when the daemon is killed it does so some seconds later, unless the daemon
 * that follows has put its own copies in their place. */
#ifndef FS_MOUNT_MIRROR_H
#define FS_MOUNT_MIRROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MIRROR_FILES 2

struct mirror {
    pid_t process; /* 0: none */
    int fd;        /* to the writer; does not block */
    char *unsent;  /* the rest of a text that the pipe did not take */
    size_t unsent_length, unsent_offset;
    int problems; /* from the writer: struct mirror_problem now and then; does not block */
};

/* What the writer could not do. */
struct mirror_problem {
    uint32_t file; /* number of the path */
    int error;     /* positive errno; 0: it works again */
};

/* Forks the writer for up to MIRROR_FILES absolute paths, some of which may be NULL; they must stay
 * valid. Only while the process has a single thread. 0 or a negative errno. */
int mirror_start(struct mirror *mirror, const char *const paths[MIRROR_FILES]);
/* 0: the writer has taken all it was handed; -EAGAIN: it has not, being slow or hanging in a file
 * system; another negative errno: there is no writer any more. Never blocks. */
int mirror_ready(struct mirror *mirror);
/* Hands the writer a text for a file. Blocks at most timeout_ms; what the writer has not taken by
 * then goes with the next text. 0, -EAGAIN: an earlier text is still on its way and this one was
 * not taken, -ENOMEM, or another negative errno: there is no writer any more. */
int mirror_write(struct mirror *mirror, uint32_t file, const char *text, size_t length,
                 int timeout_ms);
/* The next thing that the writer has to tell. False: nothing. Never blocks. */
bool mirror_next_problem(struct mirror *mirror, struct mirror_problem *out);
/* Tells the writer to remove its files and to end. Waits for it at most timeout_ms; one that hangs
 * in a file system is left behind. */
void mirror_stop(struct mirror *mirror, int timeout_ms);

#endif
