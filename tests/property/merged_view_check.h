/* SPDX-License-Identifier: MIT
 *
 * What must hold of every merged view, whatever went in. Used by the fuzzer and the unit tests. */
#ifndef TESTS_PROPERTY_MERGED_VIEW_CHECK_H
#define TESTS_PROPERTY_MERGED_VIEW_CHECK_H

#include <stdlib.h>
#include <string.h>

#include "formats/safetensors/safetensors.h"
#include "view/planner.h"

/* Where tensor bytes of the view come from must be where the tensor says. */
static inline const char *check_tensor_source(const struct merged_view *view,
                                              const struct tensor *shown,
                                              const struct tensor *original)
{
    uint64_t done = 0;

    while (done < shown->length) {
        struct extent_piece piece =
            extent_map_at(&view->map, shown->offset + done, shown->length - done);

        if (piece.length == 0 || piece.source != original->file ||
            piece.source_offset != original->offset + done)
            return "a tensor's bytes come from the wrong place";
        done += piece.length;
    }
    return NULL;
}

/* NULL when all is well, else what is not. Parses the header that the view begins with. */
static inline const char *check_merged_view(const struct merged_view *view)
{
    struct extent_piece header;
    struct arena arena = {0};
    struct tensor_set set = {0};
    const char *problem = NULL;

    header = extent_map_at(&view->map, 0, UINT64_MAX);
    if (header.source != EXTENT_LITERAL || header.source_offset != 0 || header.length % 8 != 0)
        return "the view does not begin with an aligned literal header";
    if (view->map.size != header.length + view->data_bytes)
        return "size of the view";
    if (safetensors_parse(view->map.literal + 8, (size_t)header.length - 8, view->map.size, "view",
                          &arena, &set, NULL) != 0)
        problem = "the header does not parse";
    else if (set.tensor_count != view->tensor_count)
        problem = "number of tensors";
    for (size_t i = 0; problem == NULL && i < set.tensor_count; i++) {
        const struct tensor *shown = &set.tensors[i], *original = view->tensors[i];

        if (shown->name_length != original->name_length ||
            memcmp(shown->name, original->name, shown->name_length) != 0 ||
            shown->dtype != original->dtype || shown->length != original->length ||
            shown->rank != original->rank)
            problem = "a tensor is not what it was";
        else if (shown->offset % dtype_alignment(shown->dtype) != 0)
            problem = "a tensor is not aligned";
        else
            problem = check_tensor_source(view, shown, original);
        if (problem == NULL && view->canonical && i > 0 &&
            tensor_canonical_compare(&set.tensors[i - 1], shown) >= 0)
            problem = "not in canonical order";
    }
    arena_free(&arena);
    return problem;
}

#endif
