/* SPDX-License-Identifier: MIT
 *
 * Lists as xxhsum writes and checks them, see formats/README.md 4.5. */
#ifndef DIGEST_XXHSUM_LIST_H
#define DIGEST_XXHSUM_LIST_H

#include "digest/digest_list.h"

/* Contract as digest_list_parse_lines. Lines of `--little-endian` are understood when a tag says so
 * ("XXH64_LE"); without a tag they cannot be told from others. */
int xxhsum_list_parse(const char *text, size_t length, const char *path, struct arena *arena,
                      struct digest_list *out, struct unshard_error *error);

#endif
