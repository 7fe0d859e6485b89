/* SPDX-License-Identifier: MIT
 *
 * A .distcp file: archives of torch.save one after the other, each with one tensor. */
#include "formats/dcp/dcp_metadata.h"

#include "base/checked.h"
#include "base/error.h"
#include "formats/gather.h"
#include "formats/torch/torch_file.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A stretch of a file as if it were one. */
struct stretch {
    const struct byte_reader *file;
    uint64_t offset;
};

static int read_stretch(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct stretch *stretch = context;
    return stretch->file->read(stretch->file->context, stretch->offset + offset, buffer, length);
}

static void advise_stretch(void *context, uint64_t offset, uint64_t length)
{
    const struct stretch *stretch = context;
    if (stretch->file->advise != NULL)
        stretch->file->advise(stretch->file->context, stretch->offset + offset, length);
}

static bool is_of_shape(const struct tensor *tensor, const struct dcp_part *part)
{
    return tensor->dtype == part->tensor->dtype && tensor->rank == part->tensor->rank &&
           memcmp(tensor->shape, part->sizes, tensor->rank * sizeof *tensor->shape) == 0;
}

static int read_part(const struct byte_reader *reader, const char *path,
                     const struct dcp_part *part, struct arena *arena, struct tensor *out,
                     struct unshard_error *error)
{
    char quoted[96];
    struct stretch stretch = {reader, part->offset};
    struct byte_reader archive = {
        .context = &stretch, .size = part->length, .read = read_stretch, .advise = advise_stretch};
    struct tensor_part *place = arena_alloc(arena, sizeof *place);
    error_quote(quoted, sizeof quoted, part->tensor->name, part->tensor->name_length);
    if (place == NULL)
        return error_no_memory(error);
    if (!range_within(part->offset, part->length, reader->size))
        return error_set_at(error, "truncated", 0, reader->size,
                            "%s: data is truncated: tensor \"%s\" ends at %" PRIu64
                            ", the file at %" PRIu64,
                            path, quoted, part->offset + part->length, reader->size);
    int result = torch_file_read_tensor(&archive, path, quoted, arena, out, error);
    if (result != 0) {
        if (error != NULL && error->offset != UNSHARD_NO_OFFSET)
            error->offset += part->offset;
        return result;
    }
    if (!is_of_shape(out, part))
        return error_set_at(error, "malformed-pickle", 0, part->offset,
                            "%s: tensor \"%s\" has another shape or type than .metadata says", path,
                            quoted);
    *place = (struct tensor_part){.offsets = part->offsets, .whole = part->tensor->shape};
    out->name = part->tensor->name;
    out->name_length = part->tensor->name_length;
    out->part = place;
    if (out->gather != NULL)
        out->gather->boxes[0].source += part->offset;
    else
        out->offset += part->offset;
    return 0;
}

static bool has_elements(const struct dcp_tensor *tensor)
{
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0)
            return false;
    return true;
}

/* They have no bytes and so no part. */
static void add_empty(const struct dcp_metadata *metadata, struct tensor_set *set)
{
    for (size_t i = 0; i < metadata->tensor_count; i++) {
        const struct dcp_tensor *tensor = &metadata->tensors[i];
        if (!has_elements(tensor))
            set->tensors[set->tensor_count++] = (struct tensor){.name = tensor->name,
                                                                .name_length = tensor->name_length,
                                                                .rank = tensor->rank,
                                                                .shape = tensor->shape,
                                                                .dtype = tensor->dtype};
    }
}

int dcp_file_read(const struct byte_reader *reader, const char *path,
                  const struct dcp_metadata *metadata, uint32_t file, struct arena *arena,
                  struct tensor_set *out, struct unshard_error *error)
{
    static struct metadata_entry format = {"format", "pt", 6, 2};
    struct tensor_set set = {.metadata = &format, .metadata_count = 1};
    size_t first = metadata->first_part[file], end = metadata->first_part[file + 1];
    size_t room = end - first + (file == 0 ? metadata->tensor_count : 0);
    set.tensors = arena_alloc_array(arena, room, sizeof *set.tensors);
    if (set.tensors == NULL)
        return error_no_memory(error);
    for (size_t i = first; i < end; i++) {
        int result = read_part(reader, path, &metadata->parts[i], arena,
                               &set.tensors[set.tensor_count++], error);
        if (result != 0)
            return result;
    }
    if (file == 0)
        add_empty(metadata, &set);
    *out = set;
    return 0;
}
