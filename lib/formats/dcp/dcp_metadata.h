/* SPDX-License-Identifier: MIT
 *
 * `.metadata` of torch.distributed.checkpoint (formats/README.md 7.1 and 7.2): which tensors there
 * are, in what parts, and where each part lies. A part is a complete archive of torch.save within a
 * .distcp file. */
#ifndef FORMATS_DCP_DCP_METADATA_H
#define FORMATS_DCP_DCP_METADATA_H

#include "formats/format.h"
#include "unshard.h"

#define DCP_MAX_RANK 64U

extern const struct format dcp_format;

struct dcp_tensor {
    const char *name; /* UTF-8 */
    uint32_t name_length, rank;
    const uint64_t *shape;
    enum dtype dtype;
};

/* A part of a tensor; never an empty one. */
struct dcp_part {
    const struct dcp_tensor *tensor;
    const uint64_t *offsets, *sizes; /* tensor->rank numbers each */
    uint32_t file;                   /* in files */
    uint64_t offset, length;         /* of its archive */
};

struct dcp_metadata {
    struct dcp_tensor *tensors;
    size_t tensor_count;
    struct dcp_part *parts; /* sorted by file and offset, of one file without overlap */
    size_t part_count;
    const char **files; /* distinct, each a safe path relative to the directory, in byte order */
    size_t *first_part; /* of each file, and part_count at the end */
    uint32_t file_count;
    size_t other_count; /* entries that are no tensors, which are left out */
};

/* Parses the bytes of .metadata. All memory lives in the arena. The message begins with `path`.
 * Codes: those of pickle_read; "malformed-pickle" for what is no such metadata, for parts without a
 * place or outside of their tensor, places that overlap, unsafe file names; "unsupported-pickle"
 * for element types that safetensors does not have and for transformed (compressed) parts. */
int dcp_metadata_parse(const char *bytes, size_t length, const char *path, struct arena *arena,
                       struct dcp_metadata *out, struct unshard_error *error);

/* The parts of tensors that a file holds, with tensor.part set, in order of their place, and the
 * tensors without any element in the set of file 0. The contract is that of format.read. */
int dcp_file_read(const struct byte_reader *reader, const char *path,
                  const struct dcp_metadata *metadata, uint32_t file, struct arena *arena,
                  struct tensor_set *out, struct unshard_error *error);

#endif
