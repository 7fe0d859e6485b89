/* SPDX-License-Identifier: MIT
 *
 * The tensors of a component: of a merged file from the header that was made for it, where that can
 * be read again, else from the headers of its files. */
#include "tree/headers.h"
#include "tree/model.h"

#include "base/error.h"
#include "formats/gather.h"

#include <stdlib.h>
#include <string.h>

struct listing {
    const struct unshard_checkpoint *checkpoint;
    unshard_tensor_found found;
    void *context;
};

/* file: EXTENT_LITERAL for none. */
static void tell(const struct listing *listing, const struct tensor *tensor, uint32_t file)
{
    struct unshard_tensor out = {.name = tensor->name,
                                 .name_length = tensor->name_length,
                                 .dtype = tensor_type_name(tensor),
                                 .rank = tensor->rank,
                                 .shape = tensor->shape,
                                 .bytes = tensor->length};
    if (file != EXTENT_LITERAL)
        out.shard = listing->checkpoint->files[file].path;
    listing->found(listing->context, &out);
}

/* The file that the first bytes of a tensor come from, which begins at offset or holds it. */
static uint32_t first_source(const struct gathered *gathered, uint64_t offset)
{
    uint32_t i = 0;
    while (i + 1 < gathered->count && gathered->pieces[i + 1].offset <= offset)
        i++;
    return gathered->pieces[i].gather->boxes[0].file;
}

/* 1: told, 0: the view has no header of our making. */
static int tell_merged(const struct listing *listing, const struct format *format,
                       const struct view *view)
{
    const struct extent_map *map = &view->map;
    const struct source_file *files = listing->checkpoint->files;
    struct arena arena = {0};
    struct tensor_set set = {0};
    if (map->count == 0 || map->extents[0].source != EXTENT_LITERAL ||
        format->read_laid_out == NULL ||
        format->read_laid_out(map->literal, map->literal_size, map->size, view->path, &arena,
                              &set) != 0) {
        arena_free(&arena);
        return 0;
    }
    for (size_t i = 0; i < set.tensor_count; i++) {
        struct extent_piece piece = extent_map_at(map, set.tensors[i].offset, 1);
        uint32_t file = piece.source; /* of an empty tensor at the end there is none */
        if (file != EXTENT_LITERAL && files[file].gathered != NULL)
            file = first_source(files[file].gathered, piece.source_offset);
        tell(listing, &set.tensors[i], file);
    }
    arena_free(&arena);
    return 1;
}

/* Of a component that is one of several in its files: is the tensor its own? Takes the prefix off.
 */
static bool is_own_tensor(const struct component *component, struct tensor *tensor)
{
    if (component->prefix == NULL)
        return true;
    if (tensor->name_length < component->prefix_length ||
        memcmp(tensor->name, component->prefix, component->prefix_length) != 0)
        return false;
    tensor->name += component->prefix_length;
    tensor->name_length -= (uint32_t)component->prefix_length;
    return true;
}

static void tell_header(const struct listing *listing, const struct component *component,
                        struct header *header)
{
    if (header->result != 0 && !header->truncated)
        return;
    for (size_t i = 0; i < header->set.tensor_count; i++)
        if (is_own_tensor(component, &header->set.tensors[i]))
            tell(listing, &header->set.tensors[i], header->set.tensors[i].file);
}

int unshard_component_tensors(const struct unshard_checkpoint *checkpoint, uint32_t number,
                              unshard_tensor_found found, void *context,
                              struct unshard_error *error)
{
    const struct component *component = &checkpoint->components[number];
    const struct format *format = format_of_name(component->format);
    struct listing listing = {checkpoint, found, context};
    if (component->view != UNSHARD_NO_VIEW &&
        tell_merged(&listing, format_shown(format), &checkpoint->views[component->view]))
        return 0;
    uint32_t count = format->described == NULL ? component->file_count : 0;
    struct header *headers = calloc(count + 1U, sizeof *headers);
    if (headers == NULL)
        return error_no_memory(error);
    for (uint32_t i = 0; i < count; i++) {
        headers[i].file = component->files[i];
        headers[i].format = format;
    }
    struct memory_budget budget = {.limit = HEADERS_MEMORY};
    headers_read(checkpoint, headers, count, &budget);
    for (uint32_t i = 0; i < count; i++)
        tell_header(&listing, component, &headers[i]);
    headers_free(headers, count);
    return 0;
}
