/* SPDX-License-Identifier: MIT */
#include "view/planner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/string_map.h"
#include "base/text.h"

#define MAX_VIEW_RUNS ((size_t)1 << 20)

/* ---- collecting --------------------------------------------------------------------------------
 */

static int duplicate(const struct planner_input *input, const struct tensor *tensor, size_t first,
                     size_t second, struct unshard_error *error)
{
    char name[96];

    error_quote(name, sizeof name, tensor->name, tensor->name_length);
    if (first == second)
        return error_set(error, "duplicate-tensor", 0, "%s: tensor \"%s\" is twice in shard %zu",
                         input->component, name, first + 1);
    return error_set(error, "duplicate-tensor", 0,
                     "%s: tensor \"%s\" is in both shard %zu and shard %zu", input->component, name,
                     first + 1, second + 1);
}

static int add_set(const struct planner_input *input, size_t number, struct string_map *names,
                   struct merged_view *view, struct unshard_error *error)
{
    const struct tensor_set *set = &input->sets[number];

    for (size_t i = 0; i < set->tensor_count; i++) {
        const struct tensor *tensor = &set->tensors[i];
        uint32_t first;
        int added =
            string_map_add(names, tensor->name, tensor->name_length, (uint32_t)number, &first);

        if (added < 0)
            return error_no_memory(error);
        if (added == 0)
            return duplicate(input, tensor, first, number, error);
        if (!checked_add(view->data_bytes, tensor->length, &view->data_bytes))
            return error_set(error, "too-large", EOVERFLOW,
                             "%s: the sizes of all tensors together overflow", input->component);
    }
    return 0;
}

/* No two tensors have one name; and how much they are together. */
static int check_tensors(const struct planner_input *input, struct merged_view *view,
                         struct unshard_error *error)
{
    struct string_map names = {0};
    uint64_t count = 0;
    int result = 0;

    for (size_t i = 0; i < input->set_count; i++)
        count += input->sets[i].tensor_count;
    if (count >= UINT32_MAX)
        return error_no_memory(error);
    for (size_t i = 0; i < input->set_count && result == 0; i++)
        result = add_set(input, i, &names, view, error);
    string_map_free(&names);
    return result;
}

/* ---- the map -----------------------------------------------------------------------------------
 */

static int append_runs(struct extent_map_builder *builder, const struct gather_run *runs,
                       size_t count)
{
    int result = runs == NULL ? -ENOMEM : 0;

    for (size_t i = 0; i < count && result == 0; i++)
        result = extent_map_append_source(builder, runs[i].file, runs[i].source, runs[i].length);
    return result;
}

/* Adds the tensor to the gathered file of those before it when the same files are behind them,
 * otherwise to a new one. */
static int add_piece(struct merged_view *view, const struct tensor *tensor)
{
    struct gathered *file =
        view->gathered_count > 0 ? &view->gathered[view->gathered_count - 1] : NULL;
    char name[96];

    if (file == NULL || !gather_same_files(file->pieces[0].gather, tensor->gather)) {
        struct gathered *grown =
            reallocarray(view->gathered, view->gathered_count + 1, sizeof *view->gathered);

        if (grown == NULL)
            return -ENOMEM;
        view->gathered = grown;
        file = &grown[view->gathered_count++];
        *file = (struct gathered){0};
    }
    /* Room doubles whenever the count reaches a power of two. */
    if ((file->count & (file->count - 1)) == 0) {
        struct gathered_piece *pieces = reallocarray(
            file->pieces, file->count == 0 ? 1 : file->count * (size_t)2, sizeof *pieces);

        if (pieces == NULL)
            return -ENOMEM;
        file->pieces = pieces;
    }
    char *copy = strdup(error_quote(name, sizeof name, tensor->name, tensor->name_length));

    if (copy == NULL)
        return -ENOMEM;
    file->pieces[file->count++] =
        (struct gathered_piece){.gather = tensor->gather, .offset = file->size, .name = copy};
    file->size += tensor->length;
    return 0;
}

static int append_tensor(const struct planner_input *input, struct merged_view *view,
                         struct extent_map_builder *builder, const struct tensor *tensor)
{
    struct gather_run *runs;
    size_t count;
    int result;

    if (tensor->gather == NULL)
        return extent_map_append_source(builder, tensor->file, tensor->offset, tensor->length);
    /* However long they are: a file that is not all there may have any number of long ones. */
    if (view->run_count < MAX_VIEW_RUNS && gather_runs(tensor->gather, &runs, &count)) {
        view->run_count += count;
        result = append_runs(builder, runs, count);
        free(runs);
        return result;
    }
    result = add_piece(view, tensor);
    if (result != 0)
        return result;

    const struct gathered *file = &view->gathered[view->gathered_count - 1];

    return extent_map_append_source(builder,
                                    input->first_gathered + (uint32_t)view->gathered_count - 1,
                                    file->size - tensor->length, tensor->length);
}

static int map_failed(const struct planner_input *input, int result, struct unshard_error *error)
{
    if (result == -ENOMEM)
        return error_no_memory(error);
    return error_set(error, "too-large", -result, "%s: the merged file would be too large",
                     input->component);
}

static int build_map(const struct planner_input *input, const struct file_layout *layout,
                     struct merged_view *view, struct unshard_error *error)
{
    struct extent_map_builder builder = {0};
    int result = extent_map_append_literal(&builder, layout->header.data, layout->header.length);

    for (size_t i = 0; i < layout->tensor_count && result == 0; i++) {
        result = append_tensor(input, view, &builder, layout->tensors[i]);
        if (result == 0 && layout->padding != NULL)
            result = extent_map_append_zeros(&builder, layout->padding[i]);
    }
    if (result == 0)
        result = extent_map_finish(&builder, &view->map);
    extent_map_builder_free(&builder);
    return result == 0 ? 0 : map_failed(input, result, error);
}

/* ---------------------------------------------------------------------------------------------- */

static void take_layout(struct file_layout *layout, struct merged_view *out)
{
    out->tensors = layout->tensors;
    out->tensor_count = layout->tensor_count;
    out->canonical = layout->canonical;
    out->note = layout->note;
    memcpy(out->conflict, layout->conflict, sizeof out->conflict);
    layout->tensors = NULL;
    file_layout_free(layout);
}

int planner_merge(const struct planner_input *input, struct merged_view *out,
                  struct unshard_error *error)
{
    struct file_layout layout = {0};
    int result;

    memset(out, 0, sizeof *out);
    result = check_tensors(input, out, error);
    if (result == 0)
        result = format_shown(input->format)
                     ->lay_out(input->sets, input->set_count, input->order, input->component,
                               &layout, error);
    if (result == 0)
        result = build_map(input, &layout, out, error);
    take_layout(&layout, out);
    if (result != 0)
        merged_view_free(out);
    return result;
}

void merged_view_free(struct merged_view *view)
{
    extent_map_free(&view->map);
    free(view->tensors);
    for (size_t i = 0; i < view->gathered_count; i++) {
        for (uint32_t k = 0; k < view->gathered[i].count; k++)
            free((char *)view->gathered[i].pieces[k].name);
        free(view->gathered[i].pieces);
    }
    free(view->gathered);
    memset(view, 0, sizeof *view);
}
