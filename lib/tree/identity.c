/* SPDX-License-Identifier: MIT */
#include "tree/identity.h"

#include "formats/format.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One hash in the making. */
struct making {
    XXH3_state_t *state;
};

static void add(const struct making *making, const void *bytes, size_t length)
{
    XXH3_128bits_update(making->state, bytes, length);
}

static void add_number(const struct making *making, uint64_t number)
{
    add(making, &number, sizeof number);
}

/* Two texts one after the other are told apart. */
static void add_text(const struct making *making, const char *text)
{
    size_t length = text != NULL ? strlen(text) : 0;
    add_number(making, text != NULL ? length + 1 : 0);
    if (text != NULL)
        add(making, text, length);
}

static void begin(const struct making *making)
{
    XXH3_128bits_reset(making->state);
}

static XXH128_hash_t end(const struct making *making)
{
    return XXH3_128bits_digest(making->state);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static void add_expectation(const struct making *making, const struct expectation *expectation)
{
    add_number(making, expectation != NULL);
    if (expectation == NULL)
        return;
    for (uint32_t i = 0; i < expectation->digest_count; i++) {
        const struct expected_digest *one = &expectation->digests[i];
        add_number(making, (uint64_t)one->digest.algorithm);
        add(making, one->digest.bytes, digest_size(one->digest.algorithm));
        add_text(making, one->origin);
    }
    add_number(making, expectation->has_size ? expectation->size : UINT64_MAX);
    add_text(making, expectation->contradicts ? expectation->error.message : NULL);
    const struct expected_chunks *chunks = expectation->chunks;
    add_number(making, chunks != NULL ? chunks->chunk_bytes : 0);
    add_number(making, expectation->whole_elsewhere);
    if (chunks != NULL)
        add(making, chunks->digests, chunks->count * digest_size(chunks->algorithm));
}

/* A file of which no view says more than that it is there. */
static bool is_plain(const struct source_file *file)
{
    return file->gathered == NULL && (file->as_is || file->component == NO_COMPONENT);
}

static void add_file(const struct making *making, const struct source_file *file)
{
    bool plain = is_plain(file), there = file->inode != 0;
    add_number(making, (uint64_t)plain << 1 | there);
    add_number(making, file->device);
    add_number(making, file->inode);
    if (!there) /* what is not there has nothing but its name */
        add_text(making, file->path);
    if (!plain) {
        add_number(making, file->size);
        add_number(making, (uint64_t)file->mtime_ns);
        add_text(making, file->format != NULL ? file->format->name : NULL);
        add(making, &file->layout, sizeof file->layout);
        add_text(making, file->error != NULL ? file->error->message : NULL);
    }
    add_expectation(making, file->expectation);
}

/* Ranges of bytes that are shown of each file, each as it comes, by hash. */
static void note_range(XXH128_hash_t *shown, uint64_t offset, uint64_t length, uint64_t kind)
{
    struct {
        XXH128_hash_t before;
        uint64_t offset, length, kind;
    } range = {*shown, offset, length, kind};
    *shown = XXH3_128bits(&range, sizeof range);
}

static void note_view(const struct extent_map *map, XXH128_hash_t *shown)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct extent *extent = &map->extents[map->by_source[i]];
        size_t number = map->by_source[i];
        uint64_t next = number + 1 < map->count ? map->extents[number + 1].view_offset : map->size;
        if (extent->source != EXTENT_LITERAL)
            note_range(&shown[extent->source], extent->source_offset, next - extent->view_offset,
                       1);
    }
}

static void note_gathered(const struct gathered *gathered, XXH128_hash_t *shown)
{
    for (uint32_t i = 0; gathered != NULL && i < gathered->count; i++)
        for (uint32_t k = 0; k < gathered->pieces[i].gather->box_count; k++) {
            const struct gather_box *box = &gathered->pieces[i].gather->boxes[k];
            note_range(&shown[box->file], box->source, gather_box_span(box), 2);
        }
}

/* Of views of components: who reads a file beside them shows no other bytes of it. */
static int note_shown(const struct unshard_checkpoint *layout, XXH128_hash_t **out)
{
    XXH128_hash_t *shown = calloc(layout->file_count + 1U, sizeof *shown);
    if (shown == NULL)
        return -ENOMEM;
    for (uint32_t v = 0; v < layout->view_count; v++)
        if (layout->views[v].component != NO_COMPONENT)
            note_view(&layout->views[v].map, shown);
    for (uint32_t i = 0; i < layout->file_count; i++)
        note_gathered(layout->files[i].gathered, shown);
    *out = shown;
    return 0;
}

static void make_files(const struct making *making, struct unshard_checkpoint *layout,
                       const XXH128_hash_t *shown)
{
    for (uint32_t i = 0; i < layout->file_count; i++) {
        if (layout->files[i].gathered != NULL)
            continue;
        begin(making);
        add_file(making, &layout->files[i]);
        if (!is_plain(&layout->files[i]))
            add(making, &shown[i], sizeof shown[i]);
        layout->file_identities[i] = end(making);
    }
}

static void add_gather(const struct making *making, const struct gather *gather,
                       const XXH128_hash_t *files)
{
    for (uint32_t i = 0; i < gather->box_count; i++) {
        const struct gather_box *box = &gather->boxes[i];
        add(making, &files[box->file], sizeof *files);
        add_number(making, box->source);
        add_number(making, box->target);
        add_number(making, box->run);
        add(making, box->dimensions, box->rank * sizeof *box->dimensions);
    }
}

/* What is put together is what its parts are. */
static void make_gathered(const struct making *making, struct unshard_checkpoint *layout)
{
    for (uint32_t i = 0; i < layout->file_count; i++) {
        const struct gathered *gathered = layout->files[i].gathered;
        if (gathered == NULL)
            continue;
        begin(making);
        for (uint32_t k = 0; k < gathered->count; k++) {
            add_number(making, gathered->pieces[k].offset);
            add_gather(making, gathered->pieces[k].gather, layout->file_identities);
        }
        layout->file_identities[i] = end(making);
    }
}

/* ---- views -------------------------------------------------------------------------------------
 */

static void add_map(const struct making *making, const struct extent_map *map,
                    const XXH128_hash_t *files)
{
    add_number(making, map->size);
    for (size_t i = 0; i < map->count; i++) {
        const struct extent *extent = &map->extents[i];
        static const XXH128_hash_t of_literal = {0};
        bool literal = extent->source == EXTENT_LITERAL;
        add_number(making, extent->view_offset);
        add_number(making, extent->source_offset);
        add(making, literal ? &of_literal : &files[extent->source], sizeof of_literal);
    }
    add(making, map->literal, map->literal_size);
}

/* It shows one file, all of it, whatever that is. */
static bool shows_plain_file(const struct unshard_checkpoint *layout, const struct view *view)
{
    const struct extent_map *map = &view->map;
    return map->count == 1 && map->extents[0].source != EXTENT_LITERAL &&
           map->extents[0].source_offset == 0 && is_plain(&layout->files[map->extents[0].source]) &&
           map->size == layout->files[map->extents[0].source].size;
}

static void add_view(const struct making *making, const struct unshard_checkpoint *layout,
                     const struct view *view)
{
    const XXH128_hash_t *files = layout->file_identities;
    bool plain = shows_plain_file(layout, view);
    add_number(making, (uint64_t)plain << 3 | (uint64_t)view->prefetch << 2 |
                           (uint64_t)view->unreadable << 1 | (view->component != NO_COMPONENT));
    if (plain)
        add(making, &files[view->map.extents[0].source], sizeof *files);
    else
        add_map(making, &view->map, files);
    if (view->unreadable || extent_map_next_source(&view->map, 0) == EXTENT_LITERAL)
        add_text(making, view->path); /* nothing on disk tells it from another one */
}

int identities_make(struct unshard_checkpoint *layout)
{
    struct making making = {.state = XXH3_createState()};
    XXH128_hash_t *shown = NULL;
    layout->file_identities = arena_alloc_array(&layout->arena, layout->file_count, sizeof *shown);
    layout->view_identities = arena_alloc_array(&layout->arena, layout->view_count, sizeof *shown);
    bool made = making.state != NULL && layout->file_identities != NULL &&
                layout->view_identities != NULL && note_shown(layout, &shown) == 0;
    if (made) {
        make_files(&making, layout, shown);
        make_gathered(&making, layout);
    }
    for (uint32_t v = 0; made && v < layout->view_count; v++) {
        begin(&making);
        add_view(&making, layout, &layout->views[v]);
        layout->view_identities[v] = end(&making);
    }
    XXH3_freeState(making.state);
    free(shown);
    return made ? 0 : -ENOMEM;
}

void unshard_view_identity(const struct unshard_checkpoint *checkpoint, uint32_t view,
                           unsigned char out[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, checkpoint->view_identities[view]);
    memcpy(out, canonical.digest, sizeof canonical.digest);
}
