/* SPDX-License-Identifier: MIT
 *
 * checksums.json of SGLang (srt/utils/model_file_verifier.py): {"checksums": {NAME: SHA-256}}. */
#ifndef DIGEST_CHECKSUMS_JSON_H
#define DIGEST_CHECKSUMS_JSON_H

#include "digest/digest_list.h"

/* *out is to be freed in every case. 0; -ENOTSUP with *error when it is JSON without "checksums":
 * somebody else's file of that name; -EINVAL with *error; -ENOMEM. */
int checksums_json_parse(const char *text, size_t length, const char *path, struct arena *arena,
                         struct digest_list *out, struct unshard_error *error);

#endif
