/* SPDX-License-Identifier: MIT
 *
 * What a file of digests says, whatever its form: names and digests, and what could not be used. */
#ifndef DIGEST_DIGEST_LIST_H
#define DIGEST_DIGEST_LIST_H

#include "base/arena.h"
#include "digest/digest.h"
#include "unshard.h"

#define DIGEST_LIST_MAX_BYTES (UINT64_C(64) << 20)
#define DIGEST_LIST_MAX_ENTRIES 1000000U
#define DIGEST_LIST_MAX_LINE 32768U

struct listed_digest {
    const char *name;     /* relative to the directory that the list is about, "a/b": never empty,
                           * absolute or with a component "." or ".."; in the arena */
    struct digest digest; /* DIGEST_NONE: only the size is told */
    uint32_t line;        /* 0: the form has no lines */
    bool has_size;
    uint64_t size;
};

struct digest_list {
    struct listed_digest *items;
    uint32_t count, capacity;
    uint32_t malformed_count, unsupported_count, unsafe_count; /* entries that are not in items */
    struct unshard_error malformed;                            /* the first such entry */
    char unsupported[128], unsafe[192];                        /* the first one, for a note */
};

/* Adds an entry whose name is as the list spells it: "./" and doubled slashes are dropped; a name
 * that is absolute, leads up with "..", ends in a slash, is empty, too long or holds NUL is counted
 * as unsafe instead. `place` ("SHA256SUMS line 3") is for the message. The name of *entry is set
 * here. 0 or a negative errno: -ENOMEM, -E2BIG when there are too many. */
int digest_list_add(struct digest_list *list, struct arena *arena, const char *place,
                    const char *name, size_t length, const struct listed_digest *entry);

/* Counts an entry that cannot be used; the first one's message is kept. */
void digest_list_malformed(struct digest_list *list, const char *place, const char *problem);
void digest_list_unsupported(struct digest_list *list, const char *place, const char *what);

void digest_list_free(struct digest_list *list);

/* ---- forms with lines --------------------------------------------------------------------------
 */

enum line_result { LINE_ENTRY, LINE_IGNORED, LINE_MALFORMED, LINE_UNSUPPORTED };

/* One line, and what a form makes of it. */
struct list_line {
    const char *text; /* without its LF */
    size_t length;
    struct digest digest;
    const char *name; /* within text */
    size_t name_length;
    bool escaped;        /* the name holds the escapes of sha256sum and xxhsum */
    const char *problem; /* of LINE_MALFORMED and LINE_UNSUPPORTED */
};

/* Takes a line apart. `form` is what the caller of digest_list_parse_lines gave. */
typedef enum line_result (*list_line_parser)(void *form, struct list_line *line);

/* Goes through the lines of a list; lines that begin with "#" and empty ones are skipped. Lines
 * that cannot be used are counted in *out. path is for messages. *out is to be freed in every case.
 * 0; -EINVAL with *error when the whole is no list: it holds a NUL, is too large, or has no line
 * that can be used; -ENOMEM. */
int digest_list_parse_lines(const char *text, size_t length, const char *path, struct arena *arena,
                            list_line_parser parser, void *form, struct digest_list *out,
                            struct unshard_error *error);

#endif
