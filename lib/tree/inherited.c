/* SPDX-License-Identifier: MIT */
#include "tree/inherited.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

const struct inherited *inherited_left(const struct discovery *discovery)
{
    static const struct inherited nothing;
    const struct unshard_checkpoint *above =
        discovery->context != NULL ? discovery->context->above : NULL;
    return above != NULL ? &above->inherited : &nothing;
}

/* The path lies in the directory in focus, or below it: behind that. NULL: it does not. */
static const char *behind_focus(const struct scan *scan, const char *path)
{
    const char *focus = scan->entries[scan->focus].path;
    size_t length = strlen(focus);
    if (length == 0)
        return path;
    return strncmp(path, focus, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

static void claim(struct scan *scan, const struct member_below *taken)
{
    const char *name = behind_focus(scan, taken->path);
    uint32_t entry = name == NULL || strchr(name, '/') != NULL
                         ? SCAN_NONE
                         : scan_listed_child(scan, scan->focus, name, strlen(name));
    if (entry == SCAN_NONE || (scan->entries[entry].kind != SCAN_FILE) != taken->hidden)
        return;
    scan->entries[entry].hidden = taken->hidden;
    scan->entries[entry].claimed = true;
    scan->entries[entry].unlisted = taken->unlisted;
    scan->entries[entry].damage = taken->error;
}

void inherited_apply(struct discovery *discovery)
{
    const struct inherited *left = inherited_left(discovery);
    struct scan *scan = &discovery->scan;
    if (scan->focus == SCAN_NONE)
        return;
    for (uint32_t i = 0; i < left->taken_count; i++)
        claim(scan, &left->taken[i]);
    for (uint32_t i = 0; i < left->list_count; i++)
        scan_find(scan, 0, left->lists[i]);
}

/* ---- for those below ---------------------------------------------------------------------------
 */

static const char *keep(struct discovery *discovery, const char *path)
{
    return arena_copy_string(&discovery->checkpoint->arena, path, strlen(path));
}

/* In the directory in focus or above it: parents have lower numbers. */
static bool is_handed_on(const struct scan *scan, const struct scan_entry *entry)
{
    return entry->reaches && entry->parent <= scan->focus;
}

static int make_lists(struct discovery *discovery)
{
    const struct scan *scan = &discovery->scan;
    struct inherited *out = &discovery->checkpoint->inherited;
    uint32_t count = 0;
    for (uint32_t i = 0; i < scan->count; i++)
        count += is_handed_on(scan, &scan->entries[i]);
    out->lists = arena_alloc_array(&discovery->checkpoint->arena, count, sizeof *out->lists);
    if (out->lists == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < scan->count; i++) {
        if (!is_handed_on(scan, &scan->entries[i]))
            continue;
        const char *path = keep(discovery, scan->entries[i].path);
        if (path == NULL)
            return -ENOMEM;
        out->lists[out->list_count++] = path;
    }
    return 0;
}

static int add_taken(struct discovery *discovery, const struct member_below *taken)
{
    struct inherited *out = &discovery->checkpoint->inherited;
    struct member_below kept = *taken;
    kept.path = keep(discovery, taken->path);
    if (kept.path == NULL)
        return -ENOMEM;
    if (taken->error != NULL) {
        struct unshard_error *error = arena_alloc(&discovery->checkpoint->arena, sizeof *error);
        if (error == NULL)
            return -ENOMEM;
        *error = *taken->error;
        kept.error = error;
    }
    out->taken[out->taken_count++] = kept;
    return 0;
}

/* A file that a component of the directory in focus has taken. */
static int add_member(struct discovery *discovery, uint32_t number)
{
    const struct scan_entry *entry = &discovery->scan.entries[number];
    struct member_below taken = {.path = entry->path, .unlisted = entry->unlisted};
    if (entry->parent == discovery->scan.focus)
        return 0;
    if (entry->file != SCAN_NONE)
        taken.error = discovery->checkpoint->files[entry->file].error;
    return add_taken(discovery, &taken);
}

/* What led nowhere, and is not shown since the component's own file is there. */
static int add_replaced(struct discovery *discovery, uint32_t number)
{
    const struct scan_entry *entry = &discovery->scan.entries[number];
    struct member_below taken = {.path = entry->path, .hidden = true};
    return entry->parent == discovery->scan.focus || !entry->hidden ? 0
                                                                    : add_taken(discovery, &taken);
}

static uint32_t count_members(const struct discovery *discovery)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        count += discovery->candidates[i]->member_count + discovery->candidates[i]->replaced_count;
    return count;
}

static int make_taken(struct discovery *discovery)
{
    const struct inherited *left = inherited_left(discovery);
    const struct scan *scan = &discovery->scan;
    struct inherited *out = &discovery->checkpoint->inherited;
    int result = 0;
    out->taken =
        arena_alloc_array(&discovery->checkpoint->arena,
                          (size_t)left->taken_count + count_members(discovery), sizeof *out->taken);
    if (out->taken == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < left->taken_count && result == 0; i++) {
        const char *name = behind_focus(scan, left->taken[i].path);
        if (name != NULL && strchr(name, '/') != NULL)
            result = add_taken(discovery, &left->taken[i]);
    }
    for (uint32_t i = 0; i < discovery->candidate_count && result == 0; i++) {
        const struct candidate *one = discovery->candidates[i];
        for (uint32_t k = 0; k < one->member_count && result == 0; k++)
            result = add_member(discovery, one->members[k]);
        for (uint32_t k = 0; k < one->replaced_count && result == 0; k++)
            result = add_replaced(discovery, one->replaced[k]);
    }
    return result;
}

static uint64_t hash_text(uint64_t seed, const char *text)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}

static uint64_t hash_of(const struct inherited *inherited)
{
    uint64_t hash = inherited->list_count;
    for (uint32_t i = 0; i < inherited->list_count; i++)
        hash = hash_text(hash, inherited->lists[i]);
    for (uint32_t i = 0; i < inherited->taken_count; i++) {
        const struct member_below *taken = &inherited->taken[i];
        hash = hash_text(hash + taken->unlisted + (taken->hidden ? 2 : 0), taken->path);
        hash = taken->error != NULL ? hash_text(hash, taken->error->message) : hash;
    }
    return hash;
}

int inherited_make(struct discovery *discovery)
{
    if (discovery->scan.focus == SCAN_NONE)
        return 0;
    int result = make_lists(discovery);
    if (result == 0)
        result = make_taken(discovery);
    if (result == 0)
        discovery->checkpoint->inherited.hash = hash_of(&discovery->checkpoint->inherited);
    return result;
}

/* The names that a mount adds to a directory. */
static uint64_t hash_added(const struct unshard_checkpoint *layout)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < layout->view_count; i++)
        if (layout->views[i].added)
            hash = hash_text(hash, layout->views[i].path);
    return hash;
}

uint64_t layout_context_hash(const struct layout_context *context)
{
    uint64_t hash = context->above != NULL ? context->above->inherited.hash : 0;
    if (context->snapshot != NULL)
        hash ^= hash_added(context->snapshot);
    return hash_text(hash, context->split != NULL ? context->split : "");
}
