/* SPDX-License-Identifier: MIT
 *
 * What is known to this user alone, and makes digests of chunks that nobody else can foresee
 * (DIGEST_KEYED). One is kept beside the digests that it has made. */
#ifndef DIGEST_SECRET_H
#define DIGEST_SECRET_H

#include "unshard.h"

#define SECRET_BYTES 32

struct secret {
    uint8_t bytes[SECRET_BYTES];
};

/* One for this process alone. 0 or a negative errno. */
int secret_random(struct secret *out);
/* That in the directory, which is this user's own; made when there is none. One that others may
 * read or write, that is no regular file or of another length is not used. Safe against others that
 * make one at the same time. Blocks on I/O. 0 or a negative errno with *error. */
int secret_load(int directory, struct secret *out, struct unshard_error *error);

#endif
