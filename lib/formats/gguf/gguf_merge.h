/* SPDX-License-Identifier: MIT
 *
 * One GGUF file from the splits of a model, byte for byte what `llama-gguf-split --merge` writes,
 * but where the tool contradicts itself: see formats/README.md 6.3 and 6.4. */
#ifndef FORMATS_GGUF_GGUF_MERGE_H
#define FORMATS_GGUF_GGUF_MERGE_H

#include "formats/file_layout.h"
#include "formats/gguf/gguf.h"

/* Contract of format.lay_out, for sets of gguf_read in the order of their numbers. Fails with
 * "split-mismatch" when split.no, split.count or split.tensors.count say that the files are not one
 * whole set in this order. */
int gguf_lay_out(const struct tensor_set *sets, size_t set_count, enum unshard_order order,
                 const char *component, struct file_layout *out, struct unshard_error *error);
/* Contract of format.is_shard: it has a key that only splits have. */
bool gguf_is_split(const struct tensor_set *set);

#endif
