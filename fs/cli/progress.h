/* SPDX-License-Identifier: MIT
 *
 * What a command shows while it works: a line that is drawn again and again on a terminal, a line
 * now and then elsewhere. Not thread-safe. */
#ifndef FS_CLI_PROGRESS_H
#define FS_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Seconds of a clock that only goes forward. */
double monotonic_seconds(void);

struct progress_line {
    FILE *stream;
    bool drawn;           /* an unfinished line stands on the terminal */
    double started, last; /* monotonic_seconds; of the last plain line */
};

void progress_begin(struct progress_line *line, FILE *stream);
/* Shows where the work stands. what: the file at hand. On a terminal at each call, elsewhere at
 * most every five seconds. */
void progress_show(struct progress_line *line, const char *what, uint64_t done, uint64_t total);
/* Wipes what stands on the terminal. */
void progress_end(struct progress_line *line);

#endif
