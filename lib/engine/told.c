/* SPDX-License-Identifier: MIT */
#include "engine/told.h"

#include "tree/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct told_layout *find(const struct told *told, const struct unshard_checkpoint *layout)
{
    for (uint32_t i = 0; i < told->count; i++)
        if (told->layouts[i].layout == layout)
            return &told->layouts[i];
    return NULL;
}

/* Components that no view shows any of. */
static int find_components(const struct unshard_checkpoint *layout, struct number_list *out)
{
    bool *shown = calloc((size_t)layout->component_count + 1, sizeof *shown);
    int result = shown ? number_list_reserve(out, layout->component_count) : -ENOMEM;
    for (uint32_t v = 0; result == 0 && v < layout->view_count; v++)
        if (layout->views[v].component != NO_COMPONENT)
            shown[layout->views[v].component] = true;
    for (uint32_t i = 0; result == 0 && i < layout->component_count; i++)
        if (!shown[i])
            number_list_add(out, i);
    free(shown);
    return result;
}

static void mark_sources(const struct extent_map *map, bool *has)
{
    for (uint32_t file = extent_map_next_source(map, 0); file != EXTENT_LITERAL;
         file = extent_map_next_source(map, file + 1))
        has[file] = true;
}

static int find_files(const struct unshard_checkpoint *layout, struct number_list *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < layout->file_count; i++)
        count += layout->files[i].failed && layout->files[i].component == NO_COMPONENT;
    if (count == 0)
        return 0;
    bool *has = calloc(layout->file_count, sizeof *has);
    int result = has ? number_list_reserve(out, count) : -ENOMEM;
    for (uint32_t v = 0; result == 0 && v < layout->view_count; v++)
        mark_sources(&layout->views[v].map, has);
    for (uint32_t i = 0; result == 0 && i < layout->file_count; i++)
        if (layout->files[i].failed && layout->files[i].component == NO_COMPONENT && !has[i])
            number_list_add(out, i);
    free(has);
    return result;
}

static void free_lists(struct told_layout *told)
{
    number_list_free(&told->components);
    number_list_free(&told->files);
}

static int grow(struct told *told)
{
    if (told->count < told->capacity)
        return 0;
    uint32_t capacity = 2 * told->capacity + 8;
    struct told_layout *grown = reallocarray(told->layouts, capacity, sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    told->layouts = grown;
    told->capacity = capacity;
    return 0;
}

int told_add(struct told *told, struct unshard_checkpoint *layout)
{
    struct told_layout *known = find(told, layout);
    if (known != NULL) {
        known->asked++;
        return 0;
    }
    struct told_layout new = {.layout = layout, .asked = 1};
    int result = grow(told);
    if (result == 0)
        result = find_components(layout, &new.components);
    if (result == 0)
        result = find_files(layout, &new.files);
    if (result != 0) {
        free_lists(&new);
        return result;
    }
    unshard_layout_hold(layout);
    told->layouts[told->count++] = new;
    return 0;
}

void told_remove(struct told *told, struct unshard_checkpoint *layout,
                 struct unshard_checkpoint **out)
{
    struct told_layout *known = find(told, layout);
    *out = NULL;
    if (known == NULL || --known->asked > 0)
        return;
    *out = known->layout;
    free_lists(known);
    uint32_t after = told->count - (uint32_t)(known - told->layouts) - 1;
    memmove(known, known + 1, after * sizeof *known); /* they are told of in the order of coming */
    told->count--;
}

void told_free(struct told *told)
{
    for (uint32_t i = 0; i < told->count; i++) {
        free_lists(&told->layouts[i]);
        unshard_layout_release(told->layouts[i].layout);
    }
    free(told->layouts);
    *told = (struct told){0};
}
