/* SPDX-License-Identifier: MIT
 *
 * A file that holds a whole pipeline is shown as it is, and beside it each component by itself: a
 * view of those tensors whose names have the component's prefix, without the prefix, in a directory
 * of its own. Every byte is still fetched once: the views share the chunks of the file. */
#include "tree/discovery.h"

#include "base/error.h"
#include "tree/loader_names.h"
#include "tree/split_option.h"
#include "view/planner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- what is split ----------------------------------------------------------------------------
 */

static bool is_whole(const struct candidate *candidate)
{
    if (candidate->failed || !candidate->format->holds_components)
        return false;
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (candidate->headers[i].result != 0)
            return false;
    return true;
}

/* The sets of all members; the caller frees the array. NULL when memory is short. */
static struct tensor_set *sets_of(const struct candidate *candidate)
{
    struct tensor_set *sets = calloc(candidate->member_count + 1U, sizeof *sets);
    for (uint32_t i = 0; sets != NULL && i < candidate->member_count; i++)
        sets[i] = candidate->headers[i].set;
    return sets;
}

static bool has_prefix(const struct tensor *tensor, const char *prefix, size_t length)
{
    return tensor->name_length >= length && memcmp(tensor->name, prefix, length) == 0;
}

/* Tensors with that prefix. *reserved: without it one of them would be called as only the metadata
 * of a file can be. */
static size_t count_tensors(const struct tensor_set *sets, uint32_t set_count,
                            const struct component_prefix *prefix, bool *reserved)
{
    static const char reserved_name[] = "__metadata__";
    size_t count = 0;
    for (uint32_t s = 0; s < set_count; s++) {
        for (size_t i = 0; i < sets[s].tensor_count; i++) {
            const struct tensor *tensor = &sets[s].tensors[i];
            if (!has_prefix(tensor, prefix->prefix, prefix->length))
                continue;
            count++;
            if (tensor->name_length - prefix->length == sizeof reserved_name - 1 &&
                memcmp(tensor->name + prefix->length, reserved_name, sizeof reserved_name - 1) == 0)
                *reserved = true;
        }
    }
    return count;
}

/* Something of that name is in the directory, on disk or by our doing. */
static bool name_is_taken(struct discovery *discovery, const struct candidate *candidate,
                          const char *name)
{
    if (scan_child(&discovery->scan, candidate->directory, name, strlen(name)) != SCAN_NONE)
        return true;
    /* Candidates of one directory stand together, and so do their splits. */
    for (uint32_t i = discovery->split_count; i-- > 0;) {
        const struct split *split = &discovery->splits[i];
        if (discovery->scan.entries[split->directory].parent != candidate->directory)
            break;
        if (strcmp(discovery->scan.entries[split->directory].name, name) == 0)
            return true;
    }
    for (uint32_t i = 0; strchr(name, '.') != NULL && i < discovery->candidate_count; i++) {
        const struct candidate *other = discovery->candidates[i];
        if (other->directory == candidate->directory &&
            (strcmp(other->merged_name, name) == 0 ||
             (other->index_name != NULL && strcmp(other->index_name, name) == 0)))
            return true;
    }
    return false;
}

static struct split *grow_splits(struct discovery *discovery)
{
    if (discovery->split_count == discovery->split_capacity) {
        uint32_t capacity = discovery->split_capacity == 0 ? 8 : discovery->split_capacity * 2;
        struct split *grown = realloc(discovery->splits, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        discovery->splits = grown;
        discovery->split_capacity = capacity;
    }
    return &discovery->splits[discovery->split_count];
}

static int add_split(struct discovery *discovery, const struct candidate *candidate,
                     const struct component_prefix *prefix)
{
    struct arena *arena = &discovery->checkpoint->arena;
    struct split *split = grow_splits(discovery);
    const char *kept = arena_copy_string(arena, prefix->prefix, prefix->length);
    uint32_t directory =
        split != NULL && kept != NULL
            ? scan_add_directory(&discovery->scan, arena, candidate->directory, prefix->directory)
            : SCAN_NONE;
    if (directory == SCAN_NONE)
        return -ENOMEM;
    *split = (struct split){.candidate = candidate,
                            .directory = directory,
                            .prefix = kept,
                            .prefix_length = prefix->length};
    discovery->split_count++;
    return 0;
}

/* Splits off one component, or notes why not. *found: there are tensors with the prefix. */
static int consider(struct discovery *discovery, struct candidate *candidate,
                    const struct tensor_set *sets, const struct component_prefix *prefix,
                    bool *found)
{
    struct arena *arena = &discovery->checkpoint->arena;
    char quoted[COMPONENT_PREFIX_CAPACITY * 2], name[COMPONENT_PREFIX_CAPACITY * 2];
    bool reserved = false;
    if (count_tensors(sets, candidate->member_count, prefix, &reserved) == 0)
        return 0;
    *found = true;
    error_quote(quoted, sizeof quoted, prefix->prefix, prefix->length);
    error_quote(name, sizeof name, prefix->directory, strlen(prefix->directory));
    if (reserved) {
        note_add(&candidate->notes, arena,
                 "%s is not split off: a tensor would be called __metadata__.", quoted);
        return 0;
    }
    if (name_is_taken(discovery, candidate, prefix->directory)) {
        note_add(&candidate->notes, arena,
                 "%s is not split off: there is a %s already; split=%s=NAME takes another "
                 "name.",
                 quoted, name, quoted);
        return 0;
    }
    return add_split(discovery, candidate, prefix);
}

/* ---- split=PREFIX,... --------------------------------------------------------------------------
 */

static int split_named(struct discovery *discovery, const struct component_prefixes *prefixes)
{
    bool found[COMPONENT_PREFIXES_MAX] = {false};
    int result = 0;
    for (uint32_t i = 0; i < discovery->candidate_count && result == 0; i++) {
        struct candidate *candidate = discovery->candidates[i];
        if (!is_whole(candidate))
            continue;
        struct tensor_set *sets = sets_of(candidate);
        if (sets == NULL)
            return -ENOMEM;
        uint32_t before = discovery->split_count;
        for (size_t p = 0; p < prefixes->count && result == 0; p++)
            result = consider(discovery, candidate, sets, &prefixes->items[p], &found[p]);
        /* The user wants the components: the file itself is not prefetched for nobody. */
        candidate->split_on_demand = discovery->split_count > before;
        free(sets);
    }
    for (size_t p = 0; p < prefixes->count && result == 0; p++) {
        char quoted[COMPONENT_PREFIX_CAPACITY * 2];
        if (!found[p])
            note_add(&discovery->notes, &discovery->checkpoint->arena,
                     "split: no complete safetensors file has tensors whose names begin with %s",
                     error_quote(quoted, sizeof quoted, prefixes->items[p].prefix,
                                 prefixes->items[p].length));
    }
    return result;
}

/* ---- split=auto --------------------------------------------------------------------------------
 */

/* The folders of ComfyUI (folder_paths.py), and what it calls those of Stable Diffusion web UI
 * (extra_model_paths.yaml.example): every file below one is a model of that kind, so that the
 * components of a checkpoint would be further checkpoints. */
static bool is_folder_of_comfyui(const char *name)
{
    static const char *const names[] = {"checkpoints",
                                        "loras",
                                        "vae",
                                        "text_encoders",
                                        "clip",
                                        "unet",
                                        "clip_vision",
                                        "style_models",
                                        "embeddings",
                                        "diffusers",
                                        "vae_approx",
                                        "controlnet",
                                        "t2i_adapter",
                                        "gligen",
                                        "upscale_models",
                                        "hypernetworks",
                                        "photomaker",
                                        "classifiers",
                                        "model_patches",
                                        "audio_encoders",
                                        "diffusion_models",
                                        "lora",
                                        "lycoris",
                                        "esrgan",
                                        "stable-diffusion"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static bool is_comfyuis(const struct discovery *discovery, uint32_t directory)
{
    const struct scan_entry *entries = discovery->scan.entries;
    for (; directory != 0; directory = entries[directory].parent)
        if (is_folder_of_comfyui(entries[directory].name))
            return true;
    const char *slash = strrchr(discovery->checkpoint->source, '/');
    return is_folder_of_comfyui(slash != NULL ? slash + 1 : discovery->checkpoint->source);
}

/* A pipeline that is laid out in directories already is not split. */
static bool may_be_monolithic(struct discovery *discovery, const struct candidate *candidate)
{
    static const char model_index[] = LOADER_MODEL_INDEX;
    return candidate->passthrough && is_whole(candidate) &&
           scan_child(&discovery->scan, candidate->directory, model_index,
                      sizeof model_index - 1) == SCAN_NONE &&
           !is_comfyuis(discovery, candidate->directory);
}

/* Recognises each candidate: what is to be split has `prefixes`. */
static int recognise_all(struct discovery *discovery, uint32_t *in_directory)
{
    struct component_prefixes *prefixes = malloc(sizeof *prefixes);
    for (uint32_t i = 0; prefixes != NULL && i < discovery->candidate_count; i++) {
        struct candidate *candidate = discovery->candidates[i];
        if (!may_be_monolithic(discovery, candidate) ||
            !component_prefixes_recognise(&candidate->headers[0].set, 1, prefixes))
            continue;
        in_directory[candidate->directory]++;
        candidate->prefixes = prefixes;
        prefixes = malloc(sizeof *prefixes);
    }
    int result = prefixes == NULL ? -ENOMEM : 0;
    free(prefixes);
    return result;
}

static int split_recognised(struct discovery *discovery, struct candidate *candidate)
{
    bool found = false;
    int result = 0;
    for (size_t p = 0; p < candidate->prefixes->count && result == 0; p++)
        result = consider(discovery, candidate, &candidate->headers[0].set,
                          &candidate->prefixes->items[p], &found);
    return result;
}

static int split_auto(struct discovery *discovery)
{
    uint32_t *in_directory = calloc(discovery->scan.count + 1U, sizeof *in_directory);
    int result = in_directory != NULL ? recognise_all(discovery, in_directory) : -ENOMEM;
    for (uint32_t i = 0; i < discovery->candidate_count && result == 0; i++) {
        struct candidate *candidate = discovery->candidates[i];
        if (candidate->prefixes == NULL)
            continue;
        if (in_directory[candidate->directory] == 1)
            result = split_recognised(discovery, candidate);
        else
            note_add(&candidate->notes, &discovery->checkpoint->arena,
                     "It holds several components, but so does another file beside it: none is "
                     "split. split=PREFIX=NAME splits one off.");
    }
    free(in_directory);
    return result;
}

int splitting_find(struct discovery *discovery, struct unshard_error *error)
{
    struct split_option option;
    int result = split_option_parse(discovery->checkpoint->options.split, &option, error);
    if (result != 0)
        return result;
    if (option.mode == SPLIT_NAMED)
        result = split_named(discovery, &option.prefixes);
    else if (option.mode == SPLIT_AUTO)
        result = split_auto(discovery);
    return result == 0 ? 0 : error_no_memory(error);
}

/* ---- the views ---------------------------------------------------------------------------------
 */

/* The tensors with the prefix, under their new names; the caller frees out->tensors. */
static int filter_set(const struct tensor_set *set, const struct split *split,
                      struct tensor_set *out)
{
    *out = *set;
    out->tensor_count = 0;
    out->tensors = calloc(set->tensor_count + 1, sizeof *out->tensors);
    if (out->tensors == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < set->tensor_count; i++) {
        if (!has_prefix(&set->tensors[i], split->prefix, split->prefix_length))
            continue;
        struct tensor *tensor = &out->tensors[out->tensor_count++];
        *tensor = set->tensors[i];
        tensor->name += split->prefix_length;
        tensor->name_length -= (uint32_t)split->prefix_length;
    }
    return 0;
}

static int plan(struct discovery *discovery, const struct split *split, const char *name,
                struct merged_view *view, struct unshard_error *error)
{
    const struct candidate *candidate = split->candidate;
    struct tensor_set *sets = calloc(candidate->member_count + 1U, sizeof *sets);
    int result = sets == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; i < candidate->member_count && result == 0; i++)
        result = filter_set(&candidate->headers[i].set, split, &sets[i]);
    const struct planner_input input = {.sets = sets,
                                        .set_count = candidate->member_count,
                                        .order = discovery->checkpoint->options.order,
                                        .component = name,
                                        .format = candidate->format};
    if (result == 0)
        result = planner_merge(&input, view, error);
    for (uint32_t i = 0; sets != NULL && i < candidate->member_count; i++)
        free(sets[i].tensors);
    free(sets);
    return result;
}

static void show(struct discovery *discovery, const struct split *split,
                 const struct component *component)
{
    const struct candidate *candidate = split->candidate;
    struct scan_entry like = candidate_attributes(discovery, candidate);
    const struct scan_entry *directory = &discovery->scan.entries[split->directory];
    discovery->added[discovery->added_count++] = (struct added_file){
        .directory = directory->parent,
        .name = directory->name,
        .subdirectory = split->directory,
    };
    discovery->added[discovery->added_count++] = (struct added_file){
        .directory = split->directory,
        .name = component->view_name,
        .view = component->view,
        .mtime_ns = like.mtime_ns,
        .mode = like.mode,
        .uid = like.uid,
        .gid = like.gid,
    };
}

static int set_view_path(struct arena *arena, struct component *component)
{
    size_t directory = strlen(component->directory), name = strlen(component->view_name);
    char *path = arena_alloc(arena, directory + name + 2);
    if (path == NULL)
        return -ENOMEM;
    memcpy(path, component->directory, directory);
    path[directory] = '/';
    memcpy(path + directory + 1, component->view_name, name + 1);
    component->view_path = path;
    return 0;
}

static int build_split(struct discovery *discovery, const struct split *split, uint32_t number)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    const struct candidate *candidate = split->candidate;
    const struct component *whole = &checkpoint->components[candidate->component];
    struct component *component = &checkpoint->components[number];
    struct merged_view view;
    const char *directory = discovery->scan.entries[split->directory].path;
    *component = (struct component){
        .name = directory,
        .directory = directory,
        .view_name = component_prefix_file(discovery->scan.entries[split->directory].name),
        .format = whole->format,
        .prefix = split->prefix,
        .prefix_length = split->prefix_length,
        .files = whole->files,
        .file_count = whole->file_count,
        .view = UNSHARD_NO_VIEW,
        .index_view = UNSHARD_NO_VIEW,
        .load_order = whole->load_order,
    };
    if (set_view_path(&checkpoint->arena, component) != 0)
        return -ENOMEM;
    int result = plan(discovery, split, component->name, &view, &component->error);
    component->failed = result != 0;
    if (result != 0)
        return result == -ENOMEM ? result : 0;
    component->bytes = view.map.size;
    component->tensor_count = view.tensor_count;
    component->view = discovery_add_view(discovery, component->view_path, &view.map, number);
    merged_view_free(&view);
    if (component->view == UNSHARD_NO_VIEW)
        return -ENOMEM;
    /* What is prefetched is either the file or its components: not every byte twice in memory. */
    checkpoint->views[component->view].prefetch = candidate->split_on_demand;
    if (candidate->split_on_demand && whole->view != UNSHARD_NO_VIEW)
        checkpoint->views[whole->view].prefetch = false;
    show(discovery, split, component);
    return 0;
}

int splitting_build(struct discovery *discovery, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    for (uint32_t i = 0; i < discovery->split_count; i++)
        if (build_split(discovery, &discovery->splits[i], checkpoint->component_count++) != 0)
            return error_no_memory(error);
    return 0;
}
