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
    const struct format *format; /* of all sets; NULL: safetensors */
};

struct merged_view {
    struct extent_map map;
    const struct tensor **tensors; /* in data order; malloc'd array, tensors belong to the sets */
    size_t tensor_count;
    uint64_t data_bytes;       /* sum of tensor lengths */
    bool canonical;            /* laid out in the reference's order */
    struct gathered *gathered; /* files that the map refers to and that are not on disk, numbered
                                * from first_gathered; gathers belong to the sets */
    size_t gathered_count;
    size_t run_count;   /* extents of tensors that are not contiguous */
    char conflict[256]; /* first metadata key on which shards differ, for a note; "" when none */
    const char *note;   /* static: of the format's own layout, or NULL */
};

/* Lays the tensors of all shards out as one file. A format that lays out its own files (lay_out) is
 * asked; order has no meaning there. All others become one safetensors file: UNSHARD_ORDER_SHARD
 * keeps shard and data order where every tensor then starts at a multiple of its element size;
 * otherwise tensors are sorted stably by element size descending, which always does. The header is
 * padded to whole pages, so that it can be read whatever shard is bad. UNSHARD_ORDER_CANONICAL:
 * exactly what the reference library writes for these tensors, padding too. Metadata is the union,
 * keys sorted by bytes; a key with differing values keeps the first shard's and is reported in
 * `conflict`. A tensor that is not contiguous is one extent for each run of its bytes where these
 * are few and long, otherwise a piece of a file that is put together on reading; tensors from the
 * same files share one. Errors: "duplicate-tensor" (names tensor and both files by number),
 * "header-too-large", those of lay_out, memory. */
int planner_merge(const struct planner_input *input, struct merged_view *out,
                  struct unshard_error *error);
void merged_view_free(struct merged_view *view);

#endif
