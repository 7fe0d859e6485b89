/* SPDX-License-Identifier: MIT
 *
 * What a slowfs does to its readers: delays and faults, all changeable while it is mounted.
 *
 * Commands, one per line, written to .slowfs/control:
 *   latency MS                         every read waits that long first
 *   rate BYTES                         bytes a second of one open file; 0: no limit
 *   total BYTES                        bytes a second of all files together; 0: no limit
 *   fail FILE OFFSET LENGTH ERRNO [COUNT]   reads that touch the range fail; COUNT times, or always
 *   failnth K ERRNO                    the K-th read from now on fails
 *   short FILE [COUNT]                 reads return half of what they should (mount with direct=1)
 *   flip FILE OFFSET BIT [COUNT]       one bit of the file reads inverted
 *   stall FILE [OFFSET LENGTH]         reads that touch the range wait for `release`
 *   release                            ends all stalls, and wakes those that wait
 *   vanish FILE                        the file is gone: ENOENT to look-ups, ESTALE to open files
 *   reset                              forgets all of the above, latency and rates included
 * FILE is a path below the mount, or a pattern of fnmatch(3). ERRNO is a number.
 */
#ifndef SLOWFS_RULES_H
#define SLOWFS_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one read has to do, decided before it starts. */
struct rules_verdict {
    int error;        /* positive errno to fail with, or 0 */
    bool cut_short;   /* return half of the bytes */
    uint64_t wait_ns; /* before the bytes are read */
};

/* Executes the commands in text, which is changed. 0 or -EINVAL at the first that is wrong.
 * Thread-safe, as is everything here. */
int rules_command(char *text);

/* Counts the read and decides. Blocks while a stall holds it. stream_next_ns is the caller's state
 * of the open file for the rate, 0 at first. */
struct rules_verdict rules_begin_read(const char *path, uint64_t offset, size_t size,
                                      _Atomic uint64_t *stream_next_ns);
/* Inverts the bits that flip rules name in data, the bytes of path at offset. */
void rules_corrupt(const char *path, uint64_t offset, char *data, size_t size);
/* The read is over and returned that many bytes. */
void rules_end_read(const char *path, size_t size);
bool rules_vanished(const char *path);
/* Counters as JSON. The caller frees it; NULL when memory is short. */
char *rules_stats(void);

#endif
