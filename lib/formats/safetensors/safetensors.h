/* The safetensors file format, see formats/README.md 1. */
#ifndef FORMATS_SAFETENSORS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_SAFETENSORS_H

#include "base/text.h"
#include "formats/format.h"
#include "unshard.h"

#define SAFETENSORS_MAX_HEADER UINT64_C(100000000)

extern const struct format safetensors_format;

/* Contract of format.read; *out is filled when the file is "truncated". Every rule of the reference
 * is enforced, and beyond it: a tensor name twice is refused, and so are serde's array forms. */
int safetensors_read(const struct byte_reader *reader, const char *path, struct arena *arena,
                     struct tensor_set *out, struct unshard_error *error);

/* The header JSON parsed from memory: what safetensors_read does after reading, exposed for fuzzing
 * and tests. file_size is the size of the whole file. */
int safetensors_parse(const char *json, size_t length, uint64_t file_size, const char *path,
                      struct arena *arena, struct tensor_set *out, struct unshard_error *error);

/* Appends the header of a file that holds `tensors` in this order, one after the other: the 8 bytes
 * of N, the JSON exactly as the reference writes it (metadata first and in the order given), and
 * spaces so that 8 + N is a multiple of `alignment`, itself one of 8 (which gives the reference's
 * form). have_metadata: write `__metadata__` at all. Fails with "header-too-large" above the limit.
 * Offsets come from the lengths, not from `offset`. */
int safetensors_write_header(const struct tensor *const *tensors, size_t tensor_count,
                             const struct metadata_entry *metadata, size_t metadata_count,
                             bool have_metadata, uint64_t alignment, struct text *out,
                             struct unshard_error *error);

/* Contract of format.lay_out. UNSHARD_ORDER_SHARD keeps shard and data order where every tensor
 * then starts at a multiple of its element size; otherwise tensors are sorted stably by element
 * size descending, which always does. The header is padded to whole pages, so that it can be read
 * whatever shard is bad. UNSHARD_ORDER_CANONICAL: exactly what the reference library writes for
 * these tensors, padding too. Metadata is the union, keys sorted by bytes; a key with differing
 * values keeps the first shard's and is reported in `conflict`. Fails with "header-too-large". */
int safetensors_lay_out(const struct tensor_set *sets, size_t set_count, enum unshard_order order,
                        const char *component, struct file_layout *out,
                        struct unshard_error *error);

/* Contract of format.find_parts: by DCP_SHARDING_INFO in the metadata, as HuggingFaceStorageWriter
 * writes it (formats/README.md 7.4). Takes that and DCP_VERSION out of the
 * metadata. */
int safetensors_find_parts(struct tensor_set *set, const char *path, struct arena *arena,
                           struct unshard_error *error);

#endif
