/* SPDX-License-Identifier: MIT
 *
 * What huggingface_hub keeps about a download (formats/README.md 4.3): the ETag of a file, and
 * LOCAL_DIR/.cache/huggingface/download/PATH.metadata (three lines: commit, ETag, time). */
#ifndef DIGEST_HUB_METADATA_H
#define DIGEST_HUB_METADATA_H

#include "digest/digest.h"
#include "unshard.h"

#define HUB_METADATA_MAX_BYTES (UINT64_C(16) << 10)
#define HUB_COMMIT_DIGITS 40

struct hub_metadata {
    char commit[HUB_COMMIT_DIGITS + 1]; /* "" when line 1 is no commit */
    struct digest digest;               /* DIGEST_NONE when the ETag is of no known form */
    int64_t timestamp_ns;               /* when the download was complete */
};

/* The digest that an ETag (or the name of a blob) stands for: 64 lower-case hex digits are the
 * SHA-256 of the content, 40 its git blob SHA-1; "W/" and quotes around it are dropped. False, and
 * DIGEST_NONE, for any other form. */
bool hub_etag_digest(const char *etag, size_t length, struct digest *out);

/* Whether the text is a commit: 40 lower-case hex digits. */
bool hub_is_commit(const char *text, size_t length);

/* Parses a .metadata file; path is for messages, which name the line. -EINVAL with *error when it
 * does not have three lines or the third is no finite decimal number. */
int hub_metadata_parse(const char *text, size_t length, const char *path, struct hub_metadata *out,
                       struct unshard_error *error);

/* Whether the file has not been changed since its download (the rule of huggingface_hub: mtime - 1
 * second <= timestamp); otherwise the digest says nothing about it. */
bool hub_metadata_is_current(const struct hub_metadata *metadata, int64_t mtime_ns);

#endif
