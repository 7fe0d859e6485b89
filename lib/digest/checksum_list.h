/* SPDX-License-Identifier: MIT
 *
 * Lists as md5sum, sha1sum, sha256sum and sha512sum of coreutils write and check them: GNU lines
 * ("HEX  NAME"), reversed BSD lines ("HEX NAME") and tagged lines ("SHA256 (NAME) = HEX"), read as
 * coreutils reads them (formats/README.md 4.4). */
#ifndef DIGEST_CHECKSUM_LIST_H
#define DIGEST_CHECKSUM_LIST_H

#include "digest/digest_list.h"

/* algorithm: of lines without a tag; DIGEST_NONE: told by the number of digits. implied_name: what
 * a file that holds nothing but a digest is about (NAME of "NAME.sha256"), or NULL. Once one of the
 * two forms without a tag has been seen, a line of the other is malformed: their names could be
 * taken for one another. Contract as digest_list_parse_lines. */
int checksum_list_parse(const char *text, size_t length, const char *path,
                        enum digest_algorithm algorithm, const char *implied_name,
                        struct arena *arena, struct digest_list *out, struct unshard_error *error);

#endif
