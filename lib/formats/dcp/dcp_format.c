/* SPDX-License-Identifier: MIT */
#include "formats/dcp/dcp_metadata.h"

#include "base/error.h"
#include "formats/safetensors/safetensors.h"
#include "formats/torch/pickle_machine.h"

static int parse(const char *bytes, size_t length, const char *path, struct arena *arena,
                 struct described_set *out, struct unshard_error *error)
{
    struct dcp_metadata *metadata = arena_alloc(arena, sizeof *metadata);
    if (metadata == NULL)
        return error_no_memory(error);
    int result = dcp_metadata_parse(bytes, length, path, arena, metadata, error);
    if (result == 0)
        *out = (struct described_set){.files = metadata->files,
                                      .file_count = metadata->file_count,
                                      .left_out = metadata->other_count,
                                      .detail = metadata};
    return result;
}

static int read_member(const struct byte_reader *reader, const char *path,
                       const struct described_set *set, uint32_t member, struct arena *arena,
                       struct tensor_set *out, struct unshard_error *error)
{
    return dcp_file_read(reader, path, set->detail, member, arena, out, error);
}

static const char *const no_extensions[] = {NULL};

static const struct set_description description = {
    .name = ".metadata",
    .max_bytes = PICKLE_MAX_BYTES,
    .member_extension = "distcp",
    .shown_stem = "model", /* which loaders look for */
    .called = "distributed checkpoint",
    .unfinished = "the distributed save did not end",
    .parse = parse,
    .read_member = read_member,
};

const struct format dcp_format = {
    .name = "dcp",
    .extensions = no_extensions,
    .described = &description,
    .shown_as = &safetensors_format,
};
