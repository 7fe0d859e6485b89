/* SPDX-License-Identifier: MIT
 *
 * Files that a download has left under the name of weights and that are something else: what it was
 * is told, not which rule of the format it breaks first. */
#ifndef FORMATS_FOREIGN_CONTENT_H
#define FORMATS_FOREIGN_CONTENT_H

#include "formats/tensor_set.h"
#include "unshard.h"

/* How much of the beginning of a file is looked at. */
#define FOREIGN_CONTENT_BYTES 2048U

/* Recognises an empty file ("truncated"), a Git LFS pointer ("lfs-pointer"), a web page
 * ("web-page"), and an error that a server has answered with ("server-answer"), by the first
 * `length` bytes of a file of `size` bytes; whoever calls knows that they are not what he wants. 0
 * when it is none of these, else -EINVAL and *error. Pure. */
int foreign_bytes(const void *bytes, size_t length, uint64_t size, const char *path,
                  struct unshard_error *error);
/* The same of a file; and whatever else is text or begins as a file of another kind does, is told
 * to be no `wanted` ("not-weights"). wanted: NULL for the first four alone. What cannot be read is
 * nothing of these. May block on I/O. */
int foreign_content(const struct byte_reader *reader, const char *path, const char *wanted,
                    struct unshard_error *error);

#endif
