/* SPDX-License-Identifier: MIT
 *
 * The storages that a pickle of torch.save refers to by persistent ids, see formats/README.md 5.2
 * and, of legacy files, 5.5. */
#ifndef FORMATS_TORCH_TORCH_STORAGE_H
#define FORMATS_TORCH_TORCH_STORAGE_H

#include "formats/torch/pickle_machine.h"

struct torch_storage {
    const char *key; /* in the pickle's bytes */
    uint32_t key_length;
    const struct pickle_global *type; /* STORAGE or UNTYPED_STORAGE */
    uint64_t element_size;            /* 1 when untyped */
    uint64_t bytes;                   /* of the whole storage that KEY names */
    uint64_t view_offset, view_bytes; /* the part that the tensor may use, in bytes */
    uint64_t offset;                  /* of the whole storage in the file; set by who knows */
};

/* Takes a persistent id apart. The message begins with `path`. Codes: "unsupported-pickle"
 * (-ENOTSUP; elements that safetensors does not have, an id that is no storage),
 * "malformed-pickle". */
int torch_storage_parse(const struct pickle_value *persistent, const char *path,
                        struct torch_storage *out, struct unshard_error *error);

/* Parses all persistent ids of a pickle and attaches a struct torch_storage to each, for
 * torch_state_read; *out is the array of them, in the arena. Offsets are still to be set. */
int torch_storages_attach(const struct pickle_result *pickle, const char *path, struct arena *arena,
                          struct torch_storage **out, struct unshard_error *error);

#endif
