/* SPDX-License-Identifier: MIT */
#include "tree/discovery.h"

#include "base/error.h"
#include "formats/tensor_parts.h"
#include "view/planner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* One component while it is planned. */
struct build {
    struct discovery *discovery;
    struct candidate *candidate;
    struct component *component;
    uint32_t number;
    struct header *headers; /* of its members */
};

static struct arena *arena_of(const struct build *build)
{
    return &build->discovery->checkpoint->arena;
}

static void fail(struct build *build, const struct unshard_error *error)
{
    if (build->component->failed)
        return;
    build->component->failed = true;
    build->component->error = *error;
}

static const char *join_path(struct arena *arena, const char *directory, const char *name)
{
    size_t prefix = strlen(directory), length = strlen(name);
    char *path = arena_alloc(arena, prefix + length + 2);
    if (path == NULL)
        return NULL;
    memcpy(path, directory, prefix);
    if (prefix > 0)
        path[prefix++] = '/';
    memcpy(path + prefix, name, length + 1);
    return path;
}

/* A header that storage did not give may be read another time (trace.c). */
static void say_what_helps(struct unshard_error *error)
{
    size_t length = strlen(error->message);
    if (error_is_of_storage(error))
        snprintf(error->message + length, sizeof error->message - length,
                 "; once it can be read, it is shown to who looks again");
}

/* Shards whose headers cannot be used make the component failed, unless they are shown as they are.
 * Only the end of the data missing is known from the header: such a shard can still be planned. */
static bool check_headers(struct build *build)
{
    bool usable = true;
    for (uint32_t i = 0; i < build->candidate->member_count; i++) {
        struct header *header = &build->headers[i];
        if (header->set.note != NULL)
            note_add(&build->candidate->notes, arena_of(build), "%s: %s.",
                     build->discovery->checkpoint->files[header->file].path, header->set.note);
        if (header->result == 0)
            continue;
        if (build->candidate->as_files) {
            note_add(&build->candidate->notes, arena_of(build), "%s; it is shown as it is on disk.",
                     header->error.message);
            usable = false;
            continue;
        }
        struct source_file *file = &build->discovery->checkpoint->files[header->file];
        say_what_helps(&header->error);
        discovery_fail_file(build->discovery, file, &header->error);
        fail(build, &header->error);
        usable = usable && header->truncated;
    }
    return usable;
}

static void add_file(struct build *build, const char *name, uint32_t view,
                     const struct scan_entry *like, int64_t mtime_ns)
{
    struct discovery *discovery = build->discovery;
    discovery->added[discovery->added_count++] = (struct added_file){
        .directory = build->candidate->directory,
        .name = name,
        .view = view,
        .mtime_ns = mtime_ns,
        .mode = like->mode,
        .uid = like->uid,
        .gid = like->gid,
        .unlisted = view == build->component->view && build->candidate->unlisted_view};
}

/* The view of a text made up by us. */
static uint32_t add_literal_view(struct build *build, const char *path, const struct text *text)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;
    if (path == NULL || text->failed ||
        extent_map_append_literal(&builder, text->data, text->length) != 0) {
        extent_map_builder_free(&builder);
        return UNSHARD_NO_VIEW;
    }
    if (extent_map_finish(&builder, &map) != 0)
        return UNSHARD_NO_VIEW;
    return discovery_add_view(build->discovery, path, &map, NO_COMPONENT);
}

/* Whether an index is shown. Where shards are shown beside their merged file there has to be one:
 * loaders that take every file would load each tensor twice, but for an index that names one. */
static bool wants_index(const struct build *build)
{
    const struct candidate *candidate = build->candidate;
    const struct unshard_view_options *options = &build->discovery->checkpoint->options;
    if (candidate->index_name == NULL || options->index == UNSHARD_INDEX_HIDE)
        return false;
    return candidate->index_entry != SCAN_NONE ||
           (options->layout == UNSHARD_LAYOUT_BOTH && !candidate->passthrough &&
            candidate->format->shown_as == NULL && candidate->format->is_shard == NULL);
}

struct scan_entry candidate_attributes(const struct discovery *discovery,
                                       const struct candidate *candidate)
{
    const struct scan_entry *entries = discovery->scan.entries;
    struct scan_entry result = entries[candidate->members[0]];
    struct permissions all = {result.uid, result.gid, result.mode};
    for (uint32_t i = 1; i < candidate->member_count; i++) {
        const struct scan_entry *entry = &entries[candidate->members[i]];
        if (entry->mtime_ns > result.mtime_ns)
            result.mtime_ns = entry->mtime_ns;
        all = permissions_of_both(&all, &(struct permissions){entry->uid, entry->gid, entry->mode});
    }
    result.uid = all.uid;
    result.gid = all.gid;
    result.mode = (result.mode & S_IFMT) | (all.mode & 0777);
    return result;
}

/* Shows an index that maps every tensor to the view of the component. */
static int add_index_view(struct build *build, const struct tensor *const *tensors, size_t count,
                          uint64_t data_bytes)
{
    const struct candidate *candidate = build->candidate;
    struct component *component = build->component;
    struct scan *scan = &build->discovery->scan;
    struct unshard_error error;
    struct text text = {0};
    if (!wants_index(build))
        return 0;
    uint32_t taken = scan_child(scan, candidate->directory, candidate->index_name,
                                strlen(candidate->index_name));
    if (taken != SCAN_NONE && scan->entries[taken].kind == SCAN_DIRECTORY)
        return 0;
    int result =
        index_file_write(tensors, count, component->view_name, candidate->index.metadata_json,
                         candidate->index.metadata_json_length, data_bytes, &text, &error);
    if (result == 0) {
        const char *path = join_path(arena_of(build), component->directory, candidate->index_name);
        uint32_t view = add_literal_view(build, path, &text);
        struct scan_entry like = candidate_attributes(build->discovery, build->candidate);
        if (candidate->index_entry != SCAN_NONE)
            like = scan->entries[candidate->index_entry];
        if (view == UNSHARD_NO_VIEW) {
            result = -ENOMEM;
        } else {
            component->index_name = candidate->index_name;
            component->index_view = view;
            add_file(build, candidate->index_name, view, &like, like.mtime_ns);
        }
    }
    text_free(&text);
    return result == -ENOMEM ? result : 0;
}

/* One complete file: shown byte for byte. */
static int build_passthrough(struct build *build)
{
    const struct header *header = &build->headers[0];
    const struct tensor_set *set = &header->set;
    struct component *component = build->component;
    struct source_file *file = &build->discovery->checkpoint->files[header->file];
    uint64_t size = header->truncated ? header->needed : file->size;
    component->bytes = size;
    component->view = discovery_add_passthrough(build->discovery, build->candidate->members[0],
                                                size, build->number);
    if (component->view == UNSHARD_NO_VIEW)
        return -ENOMEM;
    if ((header->result != 0 && !header->truncated) || set->tensor_count == 0)
        return 0;
    component->tensor_count = set->tensor_count;
    const struct tensor **tensors = calloc(set->tensor_count, sizeof *tensors);
    if (tensors == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < set->tensor_count; i++)
        tensors[i] = &set->tensors[i];
    int result = add_index_view(build, tensors, set->tensor_count, size - set->data_offset);
    free(tensors);
    return result;
}

/* Makes source files of the tensors that are put together on reading. */
static int add_gathered(struct build *build, const struct merged_view *merged, const char *view)
{
    struct text text = {0};
    text_printf(&text, "%s (gathered tensors)", view);
    const char *path =
        text.failed ? NULL : arena_copy_string(arena_of(build), text.data, text.length);
    bool added = path != NULL;
    for (size_t i = 0; i < merged->gathered_count && added; i++)
        added = discovery_add_gathered(build->discovery, &merged->gathered[i], path, build->number);
    text_free(&text);
    return added ? 0 : -ENOMEM;
}

/* Where the view is not listed, its file is what is prefetched. */
static int prefetch_file(struct build *build)
{
    uint32_t entry = build->candidate->members[0];
    uint64_t size = build->discovery->scan.entries[entry].size;
    return discovery_add_passthrough(build->discovery, entry, size, build->number) ==
                   UNSHARD_NO_VIEW
               ? -ENOMEM
               : 0;
}

/* The merged file stands, beside the files that it is made of and that stay: the shards of a set
 * need not be listed any more. */
static void settle_originals(struct build *build)
{
    const struct candidate *candidate = build->candidate;
    struct scan *scan = &build->discovery->scan;
    bool set = candidate->member_count > 1 || candidate->index_entry != SCAN_NONE;
    uint32_t index = candidate->described != NULL ? candidate->description : candidate->index_entry;
    if (build->discovery->checkpoint->options.layout == UNSHARD_LAYOUT_BOTH)
        return;
    for (uint32_t i = 0; i <= candidate->member_count; i++) {
        uint32_t entry = i < candidate->member_count ? candidate->members[i] : index;
        if (entry == SCAN_NONE)
            continue;
        scan->entries[entry].replaced = true;
        scan->entries[entry].unlisted = set && candidate->described == NULL;
    }
}

static int show_merged(struct build *build, struct merged_view *merged)
{
    struct component *component = build->component;
    if (merged->conflict[0] != '\0') {
        char quoted[128];
        note_add(&build->candidate->notes, arena_of(build),
                 "The shards differ in metadata \"%s\"; the value of the first one is kept.",
                 error_quote(quoted, sizeof quoted, merged->conflict, strlen(merged->conflict)));
    }
    if (merged->note != NULL)
        note_add(&build->candidate->notes, arena_of(build), "%s", merged->note);
    if (add_gathered(build, merged, component->view_path) != 0)
        return -ENOMEM;
    component->bytes = merged->map.size;
    component->tensor_count = merged->tensor_count;
    component->view =
        discovery_add_view(build->discovery, component->view_path, &merged->map, build->number);
    if (component->view == UNSHARD_NO_VIEW)
        return -ENOMEM;
    build->discovery->checkpoint->views[component->view].prefetch =
        !build->candidate->unlisted_view;
    struct scan_entry like = candidate_attributes(build->discovery, build->candidate);
    add_file(build, component->view_name, component->view, &like, like.mtime_ns);
    if (build->candidate->unlisted_view && prefetch_file(build) != 0)
        return -ENOMEM;
    if (build->candidate->format->shown_as != NULL && !build->candidate->unlisted_view)
        settle_originals(build);
    return add_index_view(build, merged->tensors, merged->tensor_count, merged->data_bytes);
}

/* Makes whole tensors where files hold parts. */
static int join_parts(struct build *build, struct tensor_set *sets, struct unshard_error *error)
{
    uint32_t count = build->candidate->member_count;
    bool parts = false;
    for (uint32_t i = 0; i < count; i++)
        parts = parts || tensor_parts_present(&sets[i]);
    struct arena *arena = &build->candidate->index_arena;
    int result = parts ? tensor_parts_join(sets, count, build->component->name, arena, error) : 0;
    return result == -ENOMEM && arena->refused
               ? headers_no_memory_left(error, build->component->name, EFBIG)
               : result;
}

/* What the view takes is made from headers, and there may be one for each name of a file: so it
 * counts with them. */
static int charge_view(struct build *build, const struct merged_view *merged,
                       struct unshard_error *error)
{
    size_t bytes = extent_map_memory(&merged->map);
    if (memory_budget_take(&build->discovery->budget, bytes))
        return 0;
    return headers_no_memory_left(error, build->component->name, EFBIG);
}

/* What it takes to make one header of several: the text of it, which grows by doubling. */
static size_t merging_memory(const struct build *build)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < build->candidate->member_count; i++)
        bytes += build->headers[i].arena.bytes + build->headers[i].arena.charged;
    return 2 * bytes;
}

/* Lays the sets out as one file, within the budget. */
static int plan_merged(struct build *build, const struct planner_input *input,
                       struct merged_view *merged, struct unshard_error *error)
{
    struct memory_budget *budget = &build->discovery->budget;
    size_t meanwhile = merging_memory(build);
    if (!memory_budget_take(budget, meanwhile))
        return headers_no_memory_left(error, build->component->name, EFBIG);
    int result = planner_merge(input, merged, error);
    memory_budget_give(budget, meanwhile);
    return result == 0 ? charge_view(build, merged, error) : result;
}

/* What the members hold, as one file. *merged is to be freed, also after an error. */
static int plan(struct build *build, struct merged_view *merged, struct unshard_error *error)
{
    const struct candidate *candidate = build->candidate;
    struct tensor_set *sets = calloc(candidate->member_count + 1U, sizeof *sets);
    *merged = (struct merged_view){0};
    if (sets == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < candidate->member_count; i++)
        sets[i] = build->headers[i].set;
    struct planner_input input = {.sets = sets,
                                  .set_count = candidate->member_count,
                                  .order = build->discovery->checkpoint->options.order,
                                  .component = build->component->name,
                                  .first_gathered = build->discovery->checkpoint->file_count,
                                  .format = candidate->format};
    int result = join_parts(build, sets, error);
    if (result == 0)
        result = plan_merged(build, &input, merged, error);
    free(sets);
    return result;
}

static int build_merged(struct build *build)
{
    struct merged_view merged;
    struct unshard_error error;
    int result = plan(build, &merged, &error);
    if (result == 0) {
        result = show_merged(build, &merged);
    } else if (result != -ENOMEM) {
        fail(build, &error);
        result = 0;
    }
    merged_view_free(&merged);
    return result;
}

/* ---- layout=shards -----------------------------------------------------------------------------
 */

/* As it is on disk, now and when it has been replaced: no view depends on what its header says. */
static int show_file(struct build *build, uint32_t member)
{
    const struct scan_entry *entry = &build->discovery->scan.entries[member];
    struct source_file *file = &build->discovery->checkpoint->files[entry->file];
    struct component *component = build->component;
    component->bytes += entry->size;
    if (entry->view != UNSHARD_NO_VIEW)
        return 0; /* in another component, too */
    file->as_is = true;
    file->format = NULL;
    file->header_piece_count = 0;
    uint32_t view = discovery_add_passthrough(build->discovery, member, entry->size, build->number);
    if (component->file_count == 1)
        component->view = view;
    return view == UNSHARD_NO_VIEW ? -ENOMEM : 0;
}

/* Notes what a merged file would fail for. */
static int check_set(struct build *build)
{
    struct merged_view merged;
    struct unshard_error error;
    int result = plan(build, &merged, &error);
    if (result == 0) {
        build->component->tensor_count = merged.tensor_count;
        memory_budget_give(&build->discovery->budget, extent_map_memory(&merged.map));
    } else if (result != -ENOMEM) {
        note_add(&build->candidate->notes, arena_of(build), "%s.", error.message);
    }
    merged_view_free(&merged);
    return result == -ENOMEM ? result : 0;
}

/* Each file under its own name. */
static int build_files(struct build *build)
{
    const struct candidate *candidate = build->candidate;
    bool usable = check_headers(build) && !candidate->failed;
    for (uint32_t i = 0; i < candidate->member_count; i++) {
        if (build->headers[i].result == 0 || build->headers[i].truncated)
            build->component->tensor_count += build->headers[i].set.tensor_count;
        if (show_file(build, candidate->members[i]) != 0)
            return -ENOMEM;
    }
    if (candidate->member_count != 1)
        build->component->view_path = NULL;
    return usable && candidate->member_count > 1 ? check_set(build) : 0;
}

/* ---------------------------------------------------------------------------------------------- */

/* Something is to be seen where a loader looks, so that it fails with the input/output error that
 * the status explains, and neither takes the component for absent nor loads another form of it. Of
 * pickles the files themselves are there. */
static int show_unreadable(struct build *build)
{
    const struct candidate *candidate = build->candidate;
    struct scan *scan = &build->discovery->scan;
    struct component *component = build->component;
    struct scan_entry like = scan->entries[candidate->directory];
    struct extent_map nothing = {0};
    uint64_t size = 0;
    uint32_t taken =
        scan_child(scan, candidate->directory, component->view_name, strlen(component->view_name));
    if (component->file_count == 0 ||
        (taken != SCAN_NONE && scan->entries[taken].kind == SCAN_DIRECTORY))
        return 0;
    for (uint32_t i = 0; i < component->file_count; i++)
        size += build->discovery->checkpoint->files[component->files[i]].size;
    if (candidate->member_count > 0)
        like = candidate_attributes(build->discovery, build->candidate);
    component->view =
        discovery_add_view(build->discovery, component->view_path, &nothing, build->number);
    if (component->view == UNSHARD_NO_VIEW)
        return -ENOMEM;
    struct view *view = &build->discovery->checkpoint->views[component->view];
    view->size = size > 0 ? size : 1;
    view->unreadable = true;
    add_file(build, component->view_name, component->view, &like, like.mtime_ns);
    return 0;
}

static int build_views(struct build *build)
{
    const struct candidate *candidate = build->candidate;
    if (candidate->failed) {
        fail(build, &candidate->error);
        return 0;
    }
    bool usable = check_headers(build);
    if (candidate->passthrough)
        return build_passthrough(build);
    return usable ? build_merged(build) : 0;
}

/* With a set that cannot be shown its shards have no view, but the status lists them, those that
 * are absent too. */
static int compare_paths(const void *a, const void *b, void *context)
{
    const struct unshard_checkpoint *checkpoint = context;
    return strcmp(checkpoint->files[*(const uint32_t *)a].path,
                  checkpoint->files[*(const uint32_t *)b].path);
}

static int list_files(struct build *build)
{
    const struct candidate *candidate = build->candidate;
    struct component *component = build->component;
    component->files =
        arena_alloc_array(arena_of(build), candidate->member_count + candidate->absent_count + 1U,
                          sizeof *component->files);
    if (component->files == NULL)
        return -ENOMEM;
    component->file_count = candidate->member_count;
    for (uint32_t i = 0; i < candidate->member_count; i++) {
        uint32_t number = build->discovery->scan.entries[candidate->members[i]].file;
        struct source_file *file = &build->discovery->checkpoint->files[number];
        component->files[i] = number;
        if (file->component == NO_COMPONENT)
            file->component = build->number;
    }
    for (uint32_t i = 0; i < candidate->absent_count; i++) {
        component->files[component->file_count++] = candidate->absent[i].file;
        build->discovery->checkpoint->files[candidate->absent[i].file].component = build->number;
    }
    if (candidate->absent_count > 0)
        qsort_r(component->files, component->file_count, sizeof *component->files, compare_paths,
                build->discovery->checkpoint);
    return 0;
}

/* "DIRECTORY", and what tells it from others in there when there are others. */
static const char *component_name(struct discovery *discovery, const struct candidate *candidate,
                                  bool alone, bool same_stem)
{
    const char *directory = discovery->scan.entries[candidate->directory].path;
    const char *suffix = alone ? "" : same_stem ? candidate->variant : candidate->base;
    struct text text = {0};
    text_append_string(&text, directory[0] == '\0' ? "." : directory);
    if (suffix[0] != '\0') {
        text_append_string(&text, " (");
        text_append_string(&text, suffix);
        text_append_string(&text, ")");
    }
    char *name = text_take(&text);
    if (name == NULL)
        return NULL;
    const char *kept = arena_copy_string(&discovery->checkpoint->arena, name, strlen(name));
    free(name);
    return kept;
}

static int name_components(struct discovery *discovery)
{
    struct component *components = discovery->checkpoint->components;
    uint32_t end;
    for (uint32_t i = 0; i < discovery->candidate_count; i = end) {
        const struct candidate *first = discovery->candidates[i];
        bool same_stem = true;
        for (end = i + 1; end < discovery->candidate_count &&
                          discovery->candidates[end]->directory == first->directory;
             end++)
            same_stem = same_stem && strcmp(discovery->candidates[end]->stem, first->stem) == 0;
        for (uint32_t k = i; k < end; k++) {
            components[k].name =
                component_name(discovery, discovery->candidates[k], end == i + 1, same_stem);
            if (components[k].name == NULL)
                return -ENOMEM;
        }
    }
    return 0;
}

static int build_component(struct discovery *discovery, uint32_t number)
{
    struct candidate *candidate = discovery->candidates[number];
    struct component *component = &discovery->checkpoint->components[number];
    struct build build = {
        .discovery = discovery,
        .candidate = candidate,
        .component = component,
        .number = number,
        .headers = candidate->headers,
    };
    candidate->component = number;
    component->directory = discovery->scan.entries[candidate->directory].path;
    component->view_name = candidate->merged_name;
    component->format = candidate->format->name;
    component->view = component->index_view = UNSHARD_NO_VIEW;
    component->load_order = candidate->load_order;
    component->view_path = join_path(arena_of(&build), component->directory, component->view_name);
    int result = component->view_path != NULL ? list_files(&build) : -ENOMEM;
    if (result == 0)
        result = candidate->as_files ? build_files(&build) : build_views(&build);
    if (result == 0 && component->failed && component->view == UNSHARD_NO_VIEW &&
        candidate->format->shown_as == NULL)
        result = show_unreadable(&build);
    if (result != 0)
        return result;
    return notes_take(&candidate->notes, arena_of(&build), &component->notes,
                      &component->note_count);
}

int components_build(struct discovery *discovery, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    uint32_t count = discovery->candidate_count;
    checkpoint->components =
        arena_alloc_array(&checkpoint->arena, (size_t)count + discovery->split_count + 1U,
                          sizeof *checkpoint->components);
    discovery->added =
        calloc(2U * ((size_t)count + discovery->split_count) + 1U, sizeof *discovery->added);
    if (checkpoint->components == NULL || discovery->added == NULL ||
        name_components(discovery) != 0)
        return error_no_memory(error);
    checkpoint->component_count = count;
    for (uint32_t i = 0; i < count; i++)
        if (build_component(discovery, i) != 0)
            return error_no_memory(error);
    return 0;
}
