/* SPDX-License-Identifier: MIT
 *
 * One GGUF file from the splits of a model (PREFIX-%05d-of-%05d.gguf), byte for byte what
 * `llama-gguf-split --merge` writes: tools/gguf-split/gguf-split.cpp (gguf_merge) and
 * ggml/src/gguf.cpp (gguf_set_kv, gguf_writer). Where that tool writes a file that contradicts
 * itself the layout is consistent instead: with a general.alignment other than 32, which the tool
 * copies but does not keep to, and for tensors without elements, whose empty dimension it drops. */
#ifndef FORMATS_GGUF_GGUF_MERGE_H
#define FORMATS_GGUF_GGUF_MERGE_H

#include "formats/file_layout.h"
#include "formats/gguf/gguf.h"

/* Contract of format.lay_out, for sets of gguf_read in the order of their numbers. Fails with
 * "split-mismatch" when split.no, split.count or split.tensors.count say that the files are not one
 * whole set in this order. */
int gguf_lay_out(const struct tensor_set *sets, size_t set_count, const char *component,
                 struct file_layout *out, struct unshard_error *error);
/* Contract of format.is_shard: it has a key that only splits have. */
bool gguf_is_split(const struct tensor_set *set);

#endif
