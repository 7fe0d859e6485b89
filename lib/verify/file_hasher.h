/* SPDX-License-Identifier: MIT
 *
 * Several digests of one content at once. */
#ifndef VERIFY_FILE_HASHER_H
#define VERIFY_FILE_HASHER_H

#include "verify/hash_files.h"

struct file_hasher {
    struct hash_request *request;
    struct hasher *hashers[DIGEST_ALGORITHM_COUNT];
    struct hasher *chunk; /* of the chunk at hand; NULL: none has begun */
    uint64_t chunk_left;  /* bytes until it is complete */
    bool failed;          /* memory was short on the way */
};

/* size: of the whole content. 0 or -ENOMEM. To be ended with file_hasher_free in every case. */
int file_hasher_begin(struct file_hasher *hasher, struct hash_request *request, uint64_t size);
void file_hasher_update(struct file_hasher *hasher, const unsigned char *data, size_t length);
/* Writes the digests to the request. 0 or -ENOMEM. */
int file_hasher_finish(struct file_hasher *hasher);
void file_hasher_free(struct file_hasher *hasher);

#endif
