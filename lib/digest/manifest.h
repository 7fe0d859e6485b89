/* SPDX-License-Identifier: MIT
 *
 * unshard-manifest.json, which `unshard seal` writes: size, SHA-256 and the SHA-256 of every chunk
 * of every file. In version 1, which is still read, those of chunks are XXH3-128. The format is
 * described in unshard-manifest(5). */
#ifndef DIGEST_MANIFEST_H
#define DIGEST_MANIFEST_H

#include "base/arena.h"
#include "base/text.h"
#include "digest/digest.h"
#include "unshard.h"

#define MANIFEST_NAME "unshard-manifest.json"
#define MANIFEST_VERSION 2U
#define MANIFEST_MAX_BYTES (UINT64_C(512) << 20)
#define MANIFEST_MAX_FILES 1000000U
#define MANIFEST_CHUNK_BYTES (UINT64_C(2) << 20)
#define MANIFEST_LEAST_CHUNK (UINT64_C(64) << 10)
#define MANIFEST_MOST_CHUNK (UINT64_C(64) << 20)

struct manifest_file {
    const char *path; /* relative to the directory of the manifest */
    uint64_t size;
    struct digest sha256;
    uint8_t *chunks; /* digests of chunk_bytes each, the last one shorter */
    uint32_t chunk_count;
};

struct manifest {
    uint64_t chunk_bytes;                  /* a power of two, 64 KiB to 64 MiB */
    enum digest_algorithm chunk_algorithm; /* of version 2: SHA-256 */
    struct manifest_file *files;
    uint32_t file_count;
};

/* Parses a manifest; everything lives in arena. Strict: every field once, unknown
 * fields nowhere, paths safe and unique, as many chunks as the size asks for. path is for messages.
 * 0; -ENOTSUP when it is of a later version; -EINVAL with *error ("malformed-manifest", line and
 * byte); -ENOMEM. */
int manifest_parse(const char *text, size_t length, const char *path, struct arena *arena,
                   struct manifest *out, struct unshard_error *error);

/* The number of chunks of a file. False when it does not fit. */
bool manifest_chunk_count(uint64_t size, uint64_t chunk_bytes, uint32_t *out);

/* Why the path of a file cannot stand in a manifest; NULL: it can. A path is relative, in UTF-8,
 * shorter than 4096 bytes, and no component is empty, "." or "..". */
const char *manifest_path_problem(const char *path, size_t length);

/* Appends the manifest as text, of the newest version: chunk_algorithm is SHA-256. -EINVAL with
 * *error when a path cannot stand in one: it is not UTF-8, or not a safe relative path; -ENOMEM. */
int manifest_write(const struct manifest *manifest, struct text *out, struct unshard_error *error);

#endif
