/* SPDX-License-Identifier: MIT */
#include "formats/safetensors/merged_metadata.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/string_map.h"

static int compare_keys(const void *left, const void *right)
{
    const struct metadata_entry *a = left, *b = right;
    uint32_t common = a->key_length < b->key_length ? a->key_length : b->key_length;
    int order = common > 0 ? memcmp(a->key, b->key, common) : 0;

    if (order != 0)
        return order;
    return (a->key_length > b->key_length) - (a->key_length < b->key_length);
}

static bool same_value(const struct metadata_entry *a, const struct metadata_entry *b)
{
    return a->value_length == b->value_length &&
           (a->value_length == 0 || memcmp(a->value, b->value, a->value_length) == 0);
}

int merged_metadata_make(const struct tensor_set *sets, size_t set_count,
                         struct merged_metadata *out, char *conflict, size_t conflict_capacity,
                         struct unshard_error *error)
{
    struct string_map keys = {0};
    size_t total = 0;
    int added = 0;

    *out = (struct merged_metadata){0};
    conflict[0] = '\0';
    for (size_t i = 0; i < set_count; i++) {
        total += sets[i].metadata_count;
        out->present = out->present || sets[i].metadata != NULL;
    }
    out->entries = calloc(total + 1, sizeof *out->entries);
    if (out->entries == NULL)
        return error_no_memory(error);
    for (size_t i = 0; i < set_count && added >= 0; i++) {
        assert(sets[i].metadata != NULL || sets[i].metadata_count == 0);
        for (size_t j = 0; j < sets[i].metadata_count && added >= 0; j++) {
            const struct metadata_entry *entry = &sets[i].metadata[j];
            uint32_t existing = 0;

            added = string_map_add(&keys, entry->key, entry->key_length, (uint32_t)out->count,
                                   &existing);
            if (added > 0)
                out->entries[out->count++] = *entry;
            else if (added == 0 && conflict[0] == '\0' &&
                     !same_value(entry, &out->entries[existing]))
                error_quote(conflict, conflict_capacity, entry->key, entry->key_length);
        }
    }
    string_map_free(&keys);
    if (added < 0)
        return error_no_memory(error);
    qsort(out->entries, out->count, sizeof *out->entries, compare_keys);
    return 0;
}

void merged_metadata_free(struct merged_metadata *metadata)
{
    free(metadata->entries);
    *metadata = (struct merged_metadata){0};
}
