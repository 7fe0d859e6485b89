/* SPDX-License-Identifier: MIT
 *
 * Reading a GGUF header from front to back. Its length stands nowhere, so it is read in pieces, of
 * growing size, and kept in memory. */
#ifndef FORMATS_GGUF_GGUF_CURSOR_H
#define FORMATS_GGUF_GGUF_CURSOR_H

#include "base/arena.h"
#include "formats/tensor_set.h"
#include "unshard.h"

struct gguf_cursor {
    const struct byte_reader *reader;
    const char *path; /* for messages */
    struct unshard_error *error;
    struct arena *arena; /* what `data` is charged to */
    unsigned char *data; /* the file's first `loaded` bytes; moves when more is read */
    size_t loaded, position;
    bool kept; /* the data is the arena's */
};

/* 0 when `length` more bytes are in memory from the position on. Otherwise the error is set: the
 * file ends before ("truncated"; `what` names the field), the header is too large, or reading
 * failed. Blocks on the reader. */
int gguf_cursor_need(struct gguf_cursor *cursor, uint64_t length, const char *what);
/* Little-endian numbers; 0 or as above. */
int gguf_cursor_u32(struct gguf_cursor *cursor, const char *what, uint32_t *out);
int gguf_cursor_u64(struct gguf_cursor *cursor, const char *what, uint64_t *out);
/* Goes behind a string (a length and so many bytes) and tells where it stands in `data`. */
int gguf_cursor_string(struct gguf_cursor *cursor, const char *what, size_t *start, size_t *length);
/* Gives the data to the arena, as long as the position; it does not move any more. False: no
 * memory. */
bool gguf_cursor_keep(struct gguf_cursor *cursor);
/* Frees the data. */
void gguf_cursor_free(struct gguf_cursor *cursor);

#endif
