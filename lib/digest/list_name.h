/* SPDX-License-Identifier: MIT
 *
 * Which files hold digests, by their names. */
#ifndef DIGEST_LIST_NAME_H
#define DIGEST_LIST_NAME_H

#include "digest/digest.h"

enum digest_list_kind {
    DIGEST_LIST_NOT_ONE,
    DIGEST_LIST_CHECKSUMS, /* of coreutils */
    DIGEST_LIST_XXHSUM,
    DIGEST_LIST_JSON,    /* checksums.json */
    DIGEST_LIST_MANIFEST /* unshard-manifest.json */
};

struct digest_list_name {
    enum digest_list_kind kind;
    enum digest_algorithm algorithm; /* of DIGEST_LIST_CHECKSUMS; NONE: the digits tell */
    size_t subject_length; /* of "NAME.sha256": the length of NAME; 0: about no single file */
};

/* Looks at a file name without directories. Names known, in any case of letters: SHA256SUMS,
 * sha256sum.txt, NAME.sha256, NAME.sha256sum and the same for md5, sha1 and sha512; checksums.txt,
 * checklist.chk and *_checklist.chk; XXHSUMS, XXH64SUMS, xxhsum.txt, NAME.xxh64 and their kin;
 * checksums.json; unshard-manifest.json. */
struct digest_list_name digest_list_name(const char *name);

#endif
