/* SPDX-License-Identifier: MIT
 *
 * The content of a file in order, read by several threads ahead of whoever takes it: storage with
 * latency is as fast as it can be, although a digest wants one byte after the other. */
#ifndef VERIFY_BLOCK_STREAM_H
#define VERIFY_BLOCK_STREAM_H

#include "tree/model.h"

#define BLOCK_BYTES ((size_t)1 << 20)

struct block_stream;

/* readers: reads in flight; a file of one block is read by the caller itself. Takes no ownership of
 * fd, an open source file of `size` bytes. Goes past the page cache where the file system allows,
 * so that a check does not drive out what is of use there; takes what is cached from there. NULL:
 * memory is short. */
struct block_stream *block_stream_open(const struct unshard_checkpoint *checkpoint, uint32_t file,
                                       int fd, unsigned readers);
/* The next bytes, valid until the next call: their number, 0 at the end, or a negative errno with
 * *error: "read-error", "truncated". Blocks. Not for two threads at once. */
ssize_t block_stream_next(struct block_stream *stream, const unsigned char **data,
                          struct unshard_error *error);
/* Waits for the reads that are under way. NULL is allowed. */
void block_stream_close(struct block_stream *stream);

#endif
