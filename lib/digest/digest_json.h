/* SPDX-License-Identifier: MIT
 *
 * What the JSON forms of digests have in common. */
#ifndef DIGEST_DIGEST_JSON_H
#define DIGEST_DIGEST_JSON_H

#include "base/string_map.h"
#include "digest/digest.h"
#include "unshard.h"
#include "json/json_reader.h"

struct digest_json {
    struct json_reader reader;
    const char *path; /* of the file, for messages */
    const char *code; /* of its errors */
    struct unshard_error *error;
};

/* Fills *error for a failed step: the reader's problem with its line and byte. Returns `result`. */
int digest_json_failed(struct digest_json *json, int result, const char *where);
/* Fills *error for a value that the grammar allows and the form does not, at `offset`. -EINVAL. */
int digest_json_refuse(struct digest_json *json, size_t offset, const char *where,
                       const char *problem);

/* Reads a string that holds a digest of the algorithm in hex. 0,
 * or a negative errno with *error. */
int digest_json_read_digest(struct digest_json *json, enum digest_algorithm algorithm,
                            const char *where, struct digest *out);

#endif
