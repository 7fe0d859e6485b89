/* SPDX-License-Identifier: MIT
 *
 * Making a struct unshard_report. */
#ifndef VERIFY_REPORT_H
#define VERIFY_REPORT_H

#include "base/arena.h"
#include "tree/model.h"
#include "verify/hash_files.h"

/* The report, and what owns its strings. */
struct report {
    struct unshard_report result; /* first: the caller's pointer is one to this */
    struct arena arena;
};

/* An empty report with room for `files` files, and the problems of the checkpoint. NULL when memory
 * is short. */
struct report *report_create(const struct unshard_checkpoint *checkpoint, uint32_t files);

/* Adds what is to be said of a source file. request: its hashes; NULL when it was not read. What is
 * told is, in this order: that it is absent, a contradiction, that it could not be read, a wrong
 * size, the first digest that differs, a chunk that differs. kept: keyed chunk digests of an
 * earlier verification of request->chunk_bytes each, to find the place by; or NULL. 0 or -ENOMEM.
 */
int report_add_file(struct report *report, const struct source_file *file,
                    const struct hash_request *request, const uint8_t *kept);
/* Adds a file that a list names and that is not there. 0 or -ENOMEM. */
int report_add_missing(struct report *report, const struct missing_file *missing);

/* The source file stands for a shard that is not there or is no regular file: only its error says
 * something. */
bool report_is_absent(const struct source_file *file);

#endif
