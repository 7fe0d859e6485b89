/* SPDX-License-Identifier: MIT */
#include "tree/model.h"

#include <string.h>

const char *unshard_checkpoint_source(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->source;
}

uint32_t unshard_node_count(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->node_count;
}

const struct unshard_node *unshard_node(const struct unshard_checkpoint *checkpoint, uint32_t node)
{
    return node < checkpoint->node_count ? &checkpoint->nodes[node] : NULL;
}

const struct unshard_node *unshard_node_child(const struct unshard_checkpoint *checkpoint,
                                              uint32_t parent, const char *name)
{
    const struct unshard_node *directory = unshard_node(checkpoint, parent);
    if (directory == NULL || directory->kind != UNSHARD_NODE_DIRECTORY)
        return NULL;
    uint32_t low = directory->first_child, high = low + directory->child_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(name, checkpoint->nodes[middle].name);
        if (order == 0)
            return &checkpoint->nodes[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

uint32_t unshard_node_number(const struct unshard_checkpoint *checkpoint,
                             const struct unshard_node *node)
{
    return (uint32_t)(node - checkpoint->nodes);
}

uint32_t unshard_view_count(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->view_count;
}

const char *unshard_view_path(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    return view < checkpoint->view_count ? checkpoint->views[view].path : NULL;
}

int32_t unshard_view_component(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    if (view >= checkpoint->view_count || checkpoint->views[view].component == NO_COMPONENT)
        return -1;
    return (int32_t)checkpoint->views[view].component;
}

bool unshard_view_listed(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    return view < checkpoint->view_count && !checkpoint->views[view].unlisted;
}

bool unshard_view_readable(const struct unshard_checkpoint *checkpoint, uint32_t view)
{
    return !checkpoint->views[view].unreadable;
}

uint32_t unshard_component_count(const struct unshard_checkpoint *checkpoint)
{
    return checkpoint->component_count;
}

struct unshard_component unshard_component(const struct unshard_checkpoint *checkpoint,
                                           uint32_t component)
{
    const struct component *from = &checkpoint->components[component];
    return (struct unshard_component){.name = from->name,
                                      .view_path = from->view_path,
                                      .view = from->view,
                                      .format = from->format,
                                      .bytes = from->bytes,
                                      .tensor_count = from->tensor_count,
                                      .shard_count = from->file_count,
                                      .error = from->failed ? &from->error : NULL,
                                      .notes = from->notes,
                                      .note_count = from->note_count};
}

struct unshard_shard unshard_component_shard(const struct unshard_checkpoint *checkpoint,
                                             uint32_t component, uint32_t shard)
{
    const struct source_file *file =
        &checkpoint->files[checkpoint->components[component].files[shard]];
    return (struct unshard_shard){
        .path = file->path, .bytes = file->size, .error = file->failed ? file->error : NULL};
}

const struct unshard_error *unshard_checkpoint_problems(const struct unshard_checkpoint *checkpoint,
                                                        uint32_t *count)
{
    *count = checkpoint->problem_count;
    return checkpoint->problems;
}

const char *const *unshard_checkpoint_notes(const struct unshard_checkpoint *checkpoint,
                                            uint32_t *count)
{
    *count = checkpoint->note_count;
    return checkpoint->notes;
}
