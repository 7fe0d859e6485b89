/* SPDX-License-Identifier: MIT
 *
 * One safetensors file of the tensors of several files of any format. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "formats/safetensors/merged_metadata.h"
#include "formats/safetensors/safetensors.h"

#define PAGE_SIZE UINT64_C(4096)
#define HEADER_ALIGNMENT UINT64_C(8)

/* ---- order -------------------------------------------------------------------------------------
 */

static bool all_aligned(const struct file_layout *layout)
{
    uint64_t offset = 0;

    assert(layout->tensors != NULL);
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct tensor *tensor = layout->tensors[i];

        assert(tensor != NULL);
        if (offset % dtype_alignment(tensor->dtype) != 0)
            return false;
        offset += tensor->length;
    }
    return true;
}

/* Each length is a multiple of its element size, and these never grow along the file: so every
 * tensor starts at a multiple of its own. There are four sizes, so four passes sort stably. */
static int sort_by_element_size(struct file_layout *layout, struct unshard_error *error)
{
    const struct tensor **sorted = calloc(layout->tensor_count + 1, sizeof *sorted);
    size_t count = 0;

    assert(layout->tensors != NULL);
    if (sorted == NULL)
        return error_no_memory(error);
    for (unsigned size = 8; size > 0; size /= 2)
        for (size_t i = 0; i < layout->tensor_count; i++)
            if (dtype_alignment(layout->tensors[i]->dtype) == size)
                sorted[count++] = layout->tensors[i];
    free(layout->tensors);
    layout->tensors = sorted;
    return 0;
}

static int compare_canonical(const void *left, const void *right)
{
    return tensor_canonical_compare(*(const struct tensor *const *)left,
                                    *(const struct tensor *const *)right);
}

static int order_tensors(enum unshard_order order, struct file_layout *layout,
                         struct unshard_error *error)
{
    assert(layout->tensors != NULL);
    layout->canonical = order == UNSHARD_ORDER_CANONICAL;
    if (layout->canonical) {
        qsort(layout->tensors, layout->tensor_count, sizeof *layout->tensors, compare_canonical);
        return 0;
    }
    return all_aligned(layout) ? 0 : sort_by_element_size(layout, error);
}

/* ---- the header --------------------------------------------------------------------------------
 */

static int write_header(const char *component, const struct merged_metadata *metadata,
                        struct file_layout *layout, struct unshard_error *error)
{
    /* A page that held a part of the header and of a shard could not be read when that shard is
     * bad, and with it all others. The reference knows no shards, and pads to its own alignment. */
    uint64_t alignment = layout->canonical ? HEADER_ALIGNMENT : PAGE_SIZE;
    char message[sizeof error->message];
    int result = safetensors_write_header(layout->tensors, layout->tensor_count, metadata->entries,
                                          metadata->count, metadata->present, alignment,
                                          &layout->header, error);

    if (result != 0 && error != NULL) {
        memcpy(message, error->message, sizeof message);
        error_set(error, error->code, error->errno_value, "%s: %s", component, message);
    }
    return result;
}

/* ---------------------------------------------------------------------------------------------- */

static int collect(const struct tensor_set *sets, size_t set_count, struct file_layout *out,
                   struct unshard_error *error)
{
    size_t count = 0;

    for (size_t i = 0; i < set_count; i++)
        count += sets[i].tensor_count;
    out->tensors = calloc(count + 1, sizeof *out->tensors);
    if (out->tensors == NULL)
        return error_no_memory(error);
    for (size_t i = 0; i < set_count; i++)
        for (size_t t = 0; t < sets[i].tensor_count; t++)
            out->tensors[out->tensor_count++] = &sets[i].tensors[t];
    return 0;
}

int safetensors_lay_out(const struct tensor_set *sets, size_t set_count, enum unshard_order order,
                        const char *component, struct file_layout *out, struct unshard_error *error)
{
    struct merged_metadata metadata = {0};
    int result;

    *out = (struct file_layout){0};
    result = collect(sets, set_count, out, error);
    if (result == 0)
        result = order_tensors(order, out, error);
    if (result == 0)
        result = merged_metadata_make(sets, set_count, &metadata, out->conflict,
                                      sizeof out->conflict, error);
    if (result == 0)
        result = write_header(component, &metadata, out, error);
    merged_metadata_free(&metadata);
    if (result != 0)
        file_layout_free(out);
    return result;
}
