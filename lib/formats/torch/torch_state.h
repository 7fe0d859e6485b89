/* SPDX-License-Identifier: MIT
 *
 * From the pickle of a state dict to tensors, see formats/README.md 5.3. */
#ifndef FORMATS_TORCH_TORCH_STATE_H
#define FORMATS_TORCH_TORCH_STATE_H

#include "formats/tensor_set.h"
#include "formats/torch/torch_storage.h"

/* What a stride of 0 may blow a tensor up to, beyond the bytes of its storage. */
#define TORCH_STATE_MAX_EXPANDED (UINT64_C(256) << 20)

/* One tensor from the value that rebuilds it; its storages must have their offsets attached. name
 * is for messages. Fills dtype, rank, shape, length, and offset or gather; the rest is left alone.
 * Codes as below. */
int torch_state_tensor(const struct pickle_value *value, const char *path, const char *name,
                       struct arena *arena, struct tensor *out, struct unshard_error *error);

/* The tensors of a state dict: a dict of names to tensors, or one that is the entry "state_dict" or
 * the only entry of the pickled dict (then out->note says so). Other entries are left out when they
 * are plain values. Sorted by where they lie in the file. The message begins with `path` and names
 * the tensor. Codes: "not-a-state-dict" and "unsupported-pickle" (-ENOTSUP), "malformed-pickle",
 * "no-memory". */
int torch_state_read(const struct pickle_result *pickle, const char *path, uint64_t file_size,
                     struct arena *arena, struct tensor_set *out, struct unshard_error *error);

#endif
