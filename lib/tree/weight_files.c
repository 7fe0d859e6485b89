/* SPDX-License-Identifier: MIT */
#include "tree/grouping.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *keep(struct discovery *discovery, const char *string)
{
    return arena_copy_string(&discovery->checkpoint->arena, string, strlen(string));
}

static int fill_weight(struct discovery *discovery, const struct weight_name *name,
                       struct weight_file *out)
{
    char text[WEIGHT_NAME_CAPACITY];
    out->kind = name->kind;
    out->legacy = name->legacy;
    out->number = name->number;
    out->total = name->total;
    out->rank = name->rank;
    out->stem = keep(discovery, name->stem);
    out->variant = keep(discovery, name->variant);
    out->extension = keep(discovery, name->extension);
    out->base = keep(discovery, weight_name_base(name, text));
    out->merged_name = weight_name_merged(name, text) ? keep(discovery, text) : out->base;
    out->index_name = weight_name_index(name, text) ? keep(discovery, text) : NULL;
    return out->stem == NULL || out->variant == NULL || out->extension == NULL ||
                   out->base == NULL || out->merged_name == NULL
               ? -ENOMEM
               : 0;
}

static int compare_numbers(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

/* Turns a name on disk into that of the file that is shown for it. False: it is none of weights. */
static bool claim_weight(const struct format *format, enum unshard_pickle pickle,
                         struct weight_name *name, struct weight_file *out)
{
    char stem[WEIGHT_NAME_CAPACITY];
    out->format = format;
    out->claim = FORMAT_CLAIM_WEIGHTS;
    if (format->claim != NULL) {
        out->claim = format->claim(name->stem, name->extension, stem, sizeof stem);
        if (out->claim == FORMAT_CLAIM_NONE ||
            (out->claim == FORMAT_CLAIM_PERHAPS && pickle != UNSHARD_PICKLE_SAFETENSORS))
            return false;
        snprintf(name->stem, sizeof name->stem, "%s", stem);
    }
    if (format->shown_as != NULL)
        snprintf(name->extension, sizeof name->extension, "%s", format->shown_as->extensions[0]);
    return true;
}

/* Indexes first and in their new spelling before the legacy one; shards of a set together and in
 * their order; then single files. */
static int compare_weights(const void *left, const void *right)
{
    static const int rank[] = {
        [WEIGHT_NAME_INDEX] = 0, [WEIGHT_NAME_SHARD] = 1, [WEIGHT_NAME_SINGLE] = 2};
    const struct weight_file *a = left, *b = right;
    int order = rank[a->kind] - rank[b->kind];
    if (order == 0)
        order = strcmp(a->merged_name, b->merged_name);
    if (order == 0 && a->kind == WEIGHT_NAME_INDEX)
        order = (int)a->legacy - (int)b->legacy;
    if (order == 0)
        order = compare_numbers(a->rank, b->rank);
    if (order == 0)
        order = compare_numbers(a->total, b->total);
    if (order == 0)
        order = compare_numbers(a->number, b->number);
    return order != 0 ? order : compare_numbers(a->entry, b->entry);
}

int weight_files_collect(struct discovery *discovery, uint32_t directory,
                         const struct format *format, struct directory_weights *out)
{
    const struct scan_entry *parent = entry_of(discovery, directory);
    enum unshard_pickle pickle = discovery->checkpoint->options.pickle;
    out->count = 0;
    out->files = calloc(parent->child_count + 1U, sizeof *out->files);
    if (out->files == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < parent->child_count; i++) {
        const struct scan_entry *entry = entry_of(discovery, parent->first_child + i);
        struct weight_name name;
        struct weight_file *file = &out->files[out->count];
        if (entry->kind == SCAN_DIRECTORY || entry->set_aside ||
            !weight_name_parse(entry->name, &name) ||
            format_of_extension(name.extension) != format ||
            !claim_weight(format, pickle, &name, file))
            continue;
        file->entry = parent->first_child + i;
        if (fill_weight(discovery, &name, file) != 0)
            return -ENOMEM;
        out->count++;
    }
    qsort(out->files, out->count, sizeof *out->files, compare_weights);
    return 0;
}
