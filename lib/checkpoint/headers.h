/* SPDX-License-Identifier: MIT
 *
 * Headers of many shards, read by several threads at once: on slow storage what counts is how many
 * requests are under way. */
#ifndef CHECKPOINT_HEADERS_H
#define CHECKPOINT_HEADERS_H

#include "checkpoint/model.h"
#include "formats/format.h"

struct header {
    uint32_t file;               /* number of the source file; set by the caller */
    const struct format *format; /* set by the caller */
    struct arena arena;          /* owns the set */
    struct tensor_set set;
    uint64_t needed; /* bytes that the file must have for all of its tensors */
    int result;      /* 0 or a negative errno */
    bool
        truncated; /* result is an error, but the set is complete: the end of the data is missing */
    struct unshard_error error;
};

/* Fills in all of `headers`. Blocks on I/O; starts and joins its own threads. The files array of
 * the checkpoint must not change meanwhile. */
void headers_read(const struct unshard_checkpoint *checkpoint, struct header *headers,
                  uint32_t count);
/* Frees their sets and the array. */
void headers_free(struct header *headers, uint32_t count);

#endif
