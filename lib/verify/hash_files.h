/* SPDX-License-Identifier: MIT
 *
 * Computing digests of many source files: several files at once, each read ahead of its hash. */
#ifndef VERIFY_HASH_FILES_H
#define VERIFY_HASH_FILES_H

#include "tree/model.h"

#define HASH_DEFAULT_JOBS 32U

/* What is wanted of a file, and what came of it. */
struct hash_request {
    uint32_t file;        /* source file */
    unsigned algorithms;  /* bit 1 << A for each enum digest_algorithm A */
    uint64_t chunk_bytes; /* also a digest of each chunk; 0: not */
    enum digest_algorithm chunk_algorithm;
    const struct secret *secret; /* of DIGEST_KEYED */

    struct hash_request *read_as; /* another name of the same file, which is read; NULL: this is */
    int result; /* 0, or a negative errno with error: "missing", "read-error", "truncated",
                 * "changed": it is not what discovery saw, or changed while it was read */
    struct unshard_error error;
    struct digest digests[DIGEST_ALGORITHM_COUNT]; /* of the algorithms asked for */
    uint8_t *chunks;                               /* malloc'd; as many as the size asks for */
    uint32_t chunk_count;
};

/* Fills in what came of every request, the largest files first; a file with several names is read
 * once, and more may be computed of it than was asked for. progress may be NULL. jobs: reads
 * in flight, 0 for the default. Blocks. 0 when all was tried, -ENOMEM or what starting a thread
 * failed with. Requests are to be freed in every case. */
int hash_files(const struct unshard_checkpoint *checkpoint, struct hash_request *requests,
               uint32_t count, unsigned jobs, unshard_progress progress, void *context);
void hash_requests_free(struct hash_request *requests, uint32_t count);

/* Whether a file is still what discovery saw: 0, or a negative errno with *error. */
int hash_check_unchanged(const struct unshard_checkpoint *checkpoint, uint32_t file,
                         struct unshard_error *error);

#endif
