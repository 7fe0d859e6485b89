/* SPDX-License-Identifier: MIT
 *
 * The union of the shards' metadata. */
#ifndef FORMATS_SAFETENSORS_MERGED_METADATA_H
#define FORMATS_SAFETENSORS_MERGED_METADATA_H

#include <stdbool.h>

#include "formats/tensor_set.h"
#include "unshard.h"

struct merged_metadata {
    struct metadata_entry *entries; /* malloc'd array; strings belong to the sets */
    size_t count;
    bool present; /* some shard has a metadata object, if only an empty one */
};

/* Merges the metadata of all sets, keys sorted by bytes. Where shards differ the first one's value
 * stays, and the first such key goes to `conflict` (quoted; "" when there is none). Pure. 0 or
 * -ENOMEM. */
int merged_metadata_make(const struct tensor_set *sets, size_t set_count,
                         struct merged_metadata *out, char *conflict, size_t conflict_capacity,
                         struct unshard_error *error);
void merged_metadata_free(struct merged_metadata *metadata);

#endif
