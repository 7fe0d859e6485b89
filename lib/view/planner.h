/* From a component's tensors to its merged view. Pure: no I/O. */
#ifndef VIEW_PLANNER_H
#define VIEW_PLANNER_H

#include "formats/format.h"
#include "formats/gather.h"
#include "formats/tensor_set.h"
#include "unshard.h"
#include "view/extent_map.h"

struct planner_input {
    const struct tensor_set *sets; /* one per shard, in shard order; tensor.file is set */
    size_t set_count;
    enum unshard_order order;
    const char *component;       /* for messages */
    uint32_t first_gathered;     /* source number of the first of merged_view.gathered */
    const struct format *format; /* of all sets */
};

struct merged_view {
    struct extent_map map;
    const struct tensor **tensors; /* in data order; malloc'd array, tensors belong to the sets */
    size_t tensor_count;
    uint64_t data_bytes;       /* sum of tensor lengths */
    bool canonical;            /* as in struct file_layout */
    struct gathered *gathered; /* files that the map refers to and that are not on disk, numbered
                                * from first_gathered; gathers belong to the sets */
    size_t gathered_count;
    size_t run_count;                    /* extents of tensors that are not contiguous */
    char conflict[FILE_LAYOUT_CONFLICT]; /* as in struct file_layout */
    const char *note;                    /* as there */
};

/* Lays the tensors of all shards out as one file, as the format of what is shown for them has it. A
 * tensor that is not contiguous is one extent for each run of its bytes where these
 * are few and long, otherwise a piece of a file that is put together on reading; tensors from the
 * same files share one. Errors: "duplicate-tensor" (names tensor and both files by number),
 * those of lay_out, memory. */
int planner_merge(const struct planner_input *input, struct merged_view *out,
                  struct unshard_error *error);
void merged_view_free(struct merged_view *view);

#endif
