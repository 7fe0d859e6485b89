/* SPDX-License-Identifier: MIT
 *
 * Files of torch.save: a zip archive with the pickle in PREFIX/data.pkl and the bytes of each
 * storage in PREFIX/data/KEY, or the layout before PyTorch 1.6 (torch_legacy.c). The pickle is
 * never run. */
#ifndef FORMATS_TORCH_TORCH_FILE_H
#define FORMATS_TORCH_TORCH_FILE_H

#include "formats/format.h"

extern const struct format torch_format;

/* Contract of format.read. -ENOTSUP: the file is whole but no state dict: TorchScript, something
 * else than torch.save wrote, a pickle of other things (codes "not-a-state-dict",
 * "unsupported-pickle"). Code "hostile-pickle": the pickle names what would run code. */
int torch_file_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                    struct tensor_set *out, struct unshard_error *error);

/* The one tensor of a zip archive whose pickled object is a tensor: what
 * torch.distributed.checkpoint writes for each chunk. Fills dtype, rank, shape, length, offset
 * (from the start of the archive) or gather. */
int torch_file_read_tensor(const struct byte_reader *reader, const char *path, const char *name,
                           struct arena *arena, struct tensor *out, struct unshard_error *error);

/* Reads the layout before PyTorch 1.6. */
int torch_legacy_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                      struct tensor_set *out, struct unshard_error *error);

/* How a file of this stem and extension is to be taken: format.claim. */
enum format_claim torch_file_claim(const char *stem, const char *extension, char *shown_stem,
                                   size_t capacity);

#endif
