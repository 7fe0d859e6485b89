/* SPDX-License-Identifier: MIT */
#include "export/view_fingerprint.h"

#include "formats/gather.h"

#include <string.h>

static void add_file(XXH3_state_t *state, const struct unshard_checkpoint *checkpoint,
                     uint32_t number)
{
    const struct source_file *file = &checkpoint->files[number];
    uint64_t identity[] = {file->inode, file->size, (uint64_t)file->mtime_ns,
                           (uint64_t)file->ctime_ns};
    XXH3_128bits_update(state, file->path, strlen(file->path) + 1);
    XXH3_128bits_update(state, identity, sizeof identity);
    for (uint32_t i = 0; file->gathered != NULL && i < file->gathered->source_count; i++)
        add_file(state, checkpoint, file->gathered->sources[i].file);
}

XXH128_hash_t view_fingerprint(const struct unshard_checkpoint *checkpoint, uint32_t view,
                               enum unshard_verify verify)
{
    const struct extent_map *map = &checkpoint->views[view].map;
    XXH3_state_t *state = XXH3_createState();
    XXH128_hash_t result = {0, 0};
    uint32_t last = EXTENT_LITERAL, how = verify;
    if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
        XXH3_freeState(state);
        return result;
    }
    XXH3_128bits_update(state, UNSHARD_VERSION, sizeof UNSHARD_VERSION);
    XXH3_128bits_update(state, &how, sizeof how);
    XXH3_128bits_update(state, &map->size, sizeof map->size);
    if (map->literal_size > 0)
        XXH3_128bits_update(state, map->literal, map->literal_size);
    for (size_t i = 0; i < map->count; i++) {
        const struct extent *extent = &map->extents[i];
        uint64_t place[] = {extent->view_offset, extent->source_offset,
                            extent->source == EXTENT_LITERAL};
        XXH3_128bits_update(state, place, sizeof place);
        if (extent->source != EXTENT_LITERAL && extent->source != last)
            add_file(state, checkpoint, extent->source);
        last = extent->source;
    }
    result = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return result;
}
