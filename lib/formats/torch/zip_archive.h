/* SPDX-License-Identifier: MIT
 *
 * The zip archives that torch.save writes (formats/README.md 5.1; zip64: APPNOTE.TXT 6.3.9,
 * sections 4.3 and 4.5). A strict reader: whatever could be read in two ways is refused. */
#ifndef FORMATS_TORCH_ZIP_ARCHIVE_H
#define FORMATS_TORCH_ZIP_ARCHIVE_H

#include "base/string_map.h"
#include "formats/tensor_set.h"
#include "unshard.h"

#define ZIP_MAX_ENTRIES 1000000U

struct zip_entry {
    const char *name; /* no NUL within; terminated */
    uint32_t name_length;
    uint64_t header_offset;     /* of the local header, from the start of the archive */
    uint64_t data_offset, size; /* size as stored: of a compressed entry, the compressed one */
    bool stored;                /* not compressed */
};

struct zip_archive {
    struct zip_entry *entries; /* in order of the directory; in the arena */
    uint32_t count;
    struct string_map names; /* name -> number in entries */
};

/* Reads the directory and the local header of every entry. Checked: the end record ends the file,
 * the directory ends where the end records begin, zip64 and plain values agree, no entry
 * is encrypted, its local header carries the same name, its data lies before the
 * directory, no two entries overlap or have the same name. The error's message begins with `path`;
 * codes "truncated" (no end record), "malformed-zip", "read-error", "no-memory". Release *out with
 * zip_archive_free in every case. Blocks on the reader. */
int zip_archive_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                     struct zip_archive *out, struct unshard_error *error);
void zip_archive_free(struct zip_archive *archive);

/* The entry of this name, or NULL. */
const struct zip_entry *zip_archive_find(const struct zip_archive *archive, const char *name,
                                         size_t length);

#endif
