/* SPDX-License-Identifier: MIT */
#include "tree/registry.h"

#include "base/lazy_array.h"
#include "formats/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 64U
#define NONE UINT32_MAX

/* ---- numbers of one kind -----------------------------------------------------------------------
 */

static int kind_init(struct registry_kind *kind, uint32_t room)
{
    *kind = (struct registry_kind){.room = room, .bucket_count = FIRST_BUCKETS};
    kind->entries = lazy_array_new(room, sizeof *kind->entries);
    kind->buckets = calloc(FIRST_BUCKETS, sizeof *kind->buckets);
    return kind->entries != NULL && kind->buckets != NULL ? 0 : -ENOMEM;
}

static void kind_free(struct registry_kind *kind)
{
    lazy_array_free(kind->entries, kind->room, sizeof *kind->entries);
    free(kind->buckets);
    number_list_free(&kind->unused);
}

static uint32_t *bucket_of(const struct registry_kind *kind, XXH128_hash_t key)
{
    return &kind->buckets[key.low64 & (kind->bucket_count - 1)];
}

static uint32_t find(const struct registry_kind *kind, XXH128_hash_t key)
{
    uint32_t at = *bucket_of(kind, key);
    while (at != 0 && !XXH128_isEqual(kind->entries[at - 1].key, key))
        at = kind->entries[at - 1].next;
    return at - 1; /* NONE */
}

static void link_entry(struct registry_kind *kind, uint32_t number)
{
    uint32_t *bucket = bucket_of(kind, kind->entries[number].key);
    kind->entries[number].next = *bucket;
    *bucket = number + 1;
}

static void unlink_entry(struct registry_kind *kind, uint32_t number)
{
    uint32_t *link = bucket_of(kind, kind->entries[number].key);
    while (*link != 0 && *link != number + 1)
        link = &kind->entries[*link - 1].next;
    if (*link != 0)
        *link = kind->entries[number].next;
}

/* As many buckets as numbers, where there is memory for them. */
static void add_buckets(struct registry_kind *kind)
{
    if (kind->end < kind->bucket_count)
        return;
    uint32_t *grown = calloc((size_t)kind->bucket_count * 2, sizeof *grown);
    if (grown == NULL)
        return;
    free(kind->buckets);
    kind->buckets = grown;
    kind->bucket_count *= 2;
    for (uint32_t i = 0; i < kind->end; i++)
        if (kind->entries[i].layout != NULL && !kind->entries[i].hidden)
            link_entry(kind, i);
}

/* Gives a number out, and notes it in `new`. */
static int take_number(struct registry_kind *kind, XXH128_hash_t key,
                       struct unshard_checkpoint *layout, struct number_list *new, uint32_t *number)
{
    if (kind->unused.count == 0 && kind->end == kind->room)
        return -ENFILE;
    /* Room to give it back, too. */
    if (number_list_reserve(new, 1) != 0 || number_list_reserve(&kind->unused, new->count + 1) != 0)
        return -ENOMEM;
    *number = kind->unused.count > 0 ? kind->unused.numbers[--kind->unused.count] : kind->end++;
    add_buckets(kind);
    kind->entries[*number] = (struct registry_entry){
        .key = key, .layout = unshard_layout_hold(layout), .age = ++kind->last_age};
    link_entry(kind, *number);
    number_list_add(new, *number);
    return 0;
}

/* The layout that was held; the caller's. */
static struct unshard_checkpoint *give_number_back(struct registry_kind *kind, uint32_t number)
{
    struct unshard_checkpoint *layout = kind->entries[number].layout;
    if (!kind->entries[number].hidden)
        unlink_entry(kind, number);
    free(kind->entries[number].own);
    kind->entries[number] = (struct registry_entry){0};
    if (number_list_reserve(&kind->unused, 1) == 0) /* else it is never used again */
        number_list_add(&kind->unused, number);
    return layout;
}

/* ---- filling entries in ------------------------------------------------------------------------
 */

/* An adoption from one layout. */
struct adopting {
    struct registry *registry;
    struct unshard_checkpoint *layout;
    uint32_t *files; /* numbers of the layout's files; NONE: not looked up yet */
    struct adoption *out;
};

static int adopt_file(struct adopting *adopting, uint32_t local);

static int adopt_sources(struct adopting *adopting, const struct gathered *gathered)
{
    int result = 0;
    for (uint32_t i = 0; i < gathered->source_count && result == 0; i++)
        result = adopt_file(adopting, gathered->sources[i].file);
    return result;
}

/* What a gathered file is made of, in one piece of memory. */
struct gathered_copy {
    struct gathered gathered;
    struct gathered_source *sources;
    struct gathered_piece *pieces;
    struct gather *gathers;
    struct gather_box *boxes;
};

static size_t count_boxes(const struct gathered *gathered)
{
    size_t count = 0;
    for (uint32_t i = 0; i < gathered->count; i++)
        count += gathered->pieces[i].gather->box_count;
    return count;
}

static struct gathered_copy *allocate_copy(const struct gathered *of)
{
    size_t boxes = count_boxes(of);
    struct gathered_copy *copy =
        calloc(1, sizeof *copy + of->source_count * sizeof *copy->sources +
                      of->count * (sizeof *copy->pieces + sizeof *copy->gathers) +
                      boxes * sizeof *copy->boxes);
    if (copy == NULL)
        return NULL;
    copy->boxes = (void *)(copy + 1);
    copy->gathers = (void *)(copy->boxes + boxes);
    copy->pieces = (void *)(copy->gathers + of->count);
    copy->sources = (void *)(copy->pieces + of->count);
    return copy;
}

/* The same bytes of files under their numbers here; NULL when memory is short. */
static struct gathered_copy *copy_gathered(const struct gathered *of, const uint32_t *files)
{
    struct gathered_copy *copy = allocate_copy(of);
    if (copy == NULL)
        return NULL;
    struct gather_box *box = copy->boxes;
    for (uint32_t i = 0; i < of->count; i++) {
        copy->gathers[i] = *of->pieces[i].gather;
        copy->gathers[i].boxes = box;
        copy->pieces[i] = of->pieces[i];
        copy->pieces[i].gather = &copy->gathers[i];
        for (uint32_t k = 0; k < copy->gathers[i].box_count; k++, box++) {
            *box = of->pieces[i].gather->boxes[k];
            box->file = files[box->file];
        }
    }
    for (uint32_t i = 0; i < of->source_count; i++) {
        copy->sources[i] = of->sources[i];
        copy->sources[i].file = files[of->sources[i].file];
    }
    copy->gathered = *of;
    copy->gathered.pieces = copy->pieces;
    copy->gathered.sources = copy->sources;
    return copy;
}

static int fill_gathered(struct adopting *adopting, uint32_t number, const struct gathered *of)
{
    struct registry *registry = adopting->registry;
    struct gathered_copy *copy = copy_gathered(of, adopting->files);
    if (copy == NULL)
        return -ENOMEM;
    registry->files.entries[number].own = copy;
    registry->all.files[number].gathered = &copy->gathered;
    for (uint32_t i = 0; i < of->source_count; i++)
        registry->files.entries[copy->sources[i].file].needed++;
    return 0;
}

/* It is there already. */
static int note_name(struct adopting *adopting, uint32_t local, uint32_t number)
{
    struct adoption *out = adopting->out;
    adopting->files[local] = number;
    if (strcmp(adopting->registry->all.files[number].path, adopting->layout->files[local].path) ==
        0)
        return 0;
    if (number_list_reserve(&out->renamed, 1) != 0 || number_list_reserve(&out->names, 1) != 0)
        return -ENOMEM;
    number_list_add(&out->renamed, number);
    number_list_add(&out->names, local);
    return 0;
}

static int adopt_file(struct adopting *adopting, uint32_t local)
{
    struct registry *registry = adopting->registry;
    const struct source_file *file = &adopting->layout->files[local];
    if (adopting->files[local] != NONE)
        return 0;
    uint32_t number = find(&registry->files, adopting->layout->file_identities[local]);
    if (number != NONE)
        return note_name(adopting, local, number);
    int result = file->gathered != NULL ? adopt_sources(adopting, file->gathered) : 0;
    if (result == 0)
        result = take_number(&registry->files, adopting->layout->file_identities[local],
                             adopting->layout, &adopting->out->files, &number);
    if (result != 0)
        return result;
    adopting->files[local] = number;
    registry->all.files[number] = *file;
    registry->all.files[number].gathered = NULL;
    registry->all.files[number].component = NO_COMPONENT;
    return file->gathered != NULL ? fill_gathered(adopting, number, file->gathered) : 0;
}

/* Calls for each file that a view shows, once. */
static int each_file(struct adopting *adopting, const struct view *view,
                     int (*visit)(struct adopting *, uint32_t))
{
    int result = 0;
    for (uint32_t file = view_next_file(view, 0); file != EXTENT_LITERAL && result == 0;
         file = view_next_file(view, file + 1))
        result = visit(adopting, file);
    return result;
}

static int note_needed(struct adopting *adopting, uint32_t local)
{
    adopting->registry->files.entries[adopting->files[local]].needed++;
    return 0;
}

static int adopt_view(struct adopting *adopting, uint32_t local, uint32_t *number)
{
    struct registry *registry = adopting->registry;
    const struct view *view = &adopting->layout->views[local];
    *number = find(&registry->views, adopting->layout->view_identities[local]);
    int result = each_file(adopting, view, adopt_file); /* or finds them */
    if (*number != NONE)
        return result;
    if (result == 0)
        result = take_number(&registry->views, adopting->layout->view_identities[local],
                             adopting->layout, &adopting->out->views, number);
    if (result != 0)
        return result;
    struct view *here = &registry->all.views[*number];
    *here = *view;
    here->map = (struct extent_map){0};
    here->component = NO_COMPONENT;
    here->file = view->file != EXTENT_LITERAL ? adopting->files[view->file] : EXTENT_LITERAL;
    here->shown_as = &adopting->layout->nodes[view->node];
    result = extent_map_renumber(&view->map, adopting->files, &here->map);
    return result != 0 ? result : each_file(adopting, view, note_needed);
}

/* ---- components --------------------------------------------------------------------------------
 */

static int fill_component(struct adopting *adopting, uint32_t number, const struct component *of)
{
    struct registry *registry = adopting->registry;
    uint32_t *files = calloc(of->file_count + 1U, sizeof *files);
    if (files == NULL)
        return -ENOMEM;
    registry->all.components[number] = *of;
    registry->all.components[number].files = files;
    registry->components.entries[number].own = files;
    registry->all.components[number].file_count = 0;
    for (uint32_t i = 0; i < of->file_count; i++) {
        int result = adopt_file(adopting, of->files[i]);
        if (result != 0)
            return result;
        files[i] = adopting->files[of->files[i]];
        registry->files.entries[files[i]].needed++;
        registry->all.components[number].file_count++;
    }
    return 0;
}

/* The number of a view of the layout here, or UNSHARD_NO_VIEW. */
static uint32_t view_here(const struct adopting *adopting, uint32_t local)
{
    return local == UNSHARD_NO_VIEW
               ? UNSHARD_NO_VIEW
               : find(&adopting->registry->views, adopting->layout->view_identities[local]);
}

/* Views that are new are of this component now. */
static void join(struct adopting *adopting, uint32_t component, uint32_t first_new)
{
    const struct number_list *views = &adopting->out->views;
    for (uint32_t i = first_new; i < views->count; i++)
        adopting->registry->all.views[views->numbers[i]].component = component;
}

/* Whether a component here is of the files that it is of in the layout. */
static bool has_same_files(const struct adopting *adopting, uint32_t number,
                           const struct component *of)
{
    const struct component *here = &adopting->registry->all.components[number];
    bool same = here->file_count == of->file_count;
    for (uint32_t i = 0; i < of->file_count && same; i++)
        same = find(&adopting->registry->files, adopting->layout->file_identities[of->files[i]]) ==
               here->files[i];
    return same;
}

/* The component of one of its views that was there before, or a new one: also when files that are
 * shown themselves are the same but for some. */
static int adopt_component(struct adopting *adopting, uint32_t local)
{
    struct registry *registry = adopting->registry;
    const struct unshard_checkpoint *layout = adopting->layout;
    const struct component *component = &layout->components[local];
    uint32_t known = NO_COMPONENT, number, first_new = adopting->out->views.count;
    int result = 0;
    for (uint32_t v = 0; v < layout->view_count && result == 0; v++) {
        if (layout->views[v].component != local)
            continue;
        result = adopt_view(adopting, v, &number);
        if (result == 0 && known == NO_COMPONENT)
            known = registry->all.views[number].component;
        if (known != NO_COMPONENT && !has_same_files(adopting, known, component))
            known = NO_COMPONENT;
    }
    if (result != 0)
        return result;
    if (known == NO_COMPONENT) {
        XXH128_hash_t key = XXH3_128bits(&layout->views, sizeof layout->views);
        key.low64 ^= local; /* none is looked for by it */
        result = take_number(&registry->components, key, adopting->layout,
                             &adopting->out->components, &known);
        if (result == 0)
            result = fill_component(adopting, known, component);
        if (result == 0) {
            registry->all.components[known].view = view_here(adopting, component->view);
            registry->all.components[known].index_view = view_here(adopting, component->index_view);
        }
    }
    join(adopting, known, first_new);
    return result;
}

/* An index that is made up has come after its component. */
static void note_index(const struct adopting *adopting, uint32_t local, uint32_t number)
{
    const struct unshard_checkpoint *layout = adopting->layout;
    struct unshard_checkpoint *all = &adopting->registry->all;
    for (uint32_t i = 0; i < layout->component_count; i++) {
        uint32_t view = layout->components[i].index_view == local
                            ? view_here(adopting, layout->components[i].view)
                            : UNSHARD_NO_VIEW;
        if (view != UNSHARD_NO_VIEW && all->views[view].component != NO_COMPONENT)
            all->components[all->views[view].component].index_view = number;
    }
}

/* The view is gone. */
static void forget_index(struct registry *registry, uint32_t view)
{
    for (uint32_t i = 0; i < registry->all.component_count; i++)
        if (registry->components.entries[i].there && registry->all.components[i].index_view == view)
            registry->all.components[i].index_view = UNSHARD_NO_VIEW;
}

/* ---- adopting ----------------------------------------------------------------------------------
 */

static int begin(struct adopting *adopting)
{
    uint32_t count = adopting->layout->file_count;
    adopting->files = malloc((count + 1U) * sizeof *adopting->files);
    if (adopting->files == NULL)
        return -ENOMEM;
    memset(adopting->files, 0xff, (count + 1U) * sizeof *adopting->files);
    return 0;
}

static void end(struct adopting *adopting)
{
    free(adopting->files);
}

int registry_adopt(struct registry *registry, struct unshard_checkpoint *layout, uint32_t view,
                   struct adoption *adoption)
{
    struct adopting adopting = {.registry = registry, .layout = layout, .out = adoption};
    *adoption = (struct adoption){.view = UNSHARD_NO_VIEW};
    int result = begin(&adopting);
    if (result == 0 && view_here(&adopting, view) == NONE &&
        layout->views[view].component != NO_COMPONENT)
        result = adopt_component(&adopting, layout->views[view].component);
    else if (result == 0)
        result = adopt_view(&adopting, view, &adoption->view);
    if (result == 0 && adoption->view == UNSHARD_NO_VIEW)
        adoption->view = view_here(&adopting, view);
    if (result == 0 && layout->views[view].component == NO_COMPONENT)
        note_index(&adopting, view, adoption->view);
    end(&adopting);
    return result;
}

/* What was made by hand has no identities: nothing is the same as it. */
static XXH128_hash_t key_of(const XXH128_hash_t *identities, uint32_t number)
{
    return identities != NULL ? identities[number] : (XXH128_hash_t){number, 0};
}

static int adopt_each(struct adopting *adopting)
{
    struct registry *registry = adopting->registry;
    const struct unshard_checkpoint *layout = adopting->layout;
    uint32_t number;
    int result = 0;
    for (uint32_t i = 0; i < layout->file_count && result == 0; i++) {
        result = take_number(&registry->files, key_of(layout->file_identities, i), adopting->layout,
                             &adopting->out->files, &number);
        adopting->files[i] = i;
        registry->all.files[i] = layout->files[i];
    }
    for (uint32_t i = 0; i < layout->view_count && result == 0; i++) {
        result = take_number(&registry->views, key_of(layout->view_identities, i), adopting->layout,
                             &adopting->out->views, &number);
        registry->all.views[i] = layout->views[i];
        registry->all.views[i].shown_as = &layout->nodes[layout->views[i].node];
        registry->all.views[i].lent = true;
        if (result == 0)
            result = each_file(adopting, &layout->views[i], note_needed);
    }
    for (uint32_t i = 0; i < layout->component_count && result == 0; i++) {
        result = take_number(&registry->components, (XXH128_hash_t){i, 0}, adopting->layout,
                             &adopting->out->components, &number);
        registry->all.components[i] = layout->components[i];
    }
    return result;
}

int registry_adopt_all(struct registry *registry, const struct unshard_checkpoint *checkpoint,
                       struct adoption *adoption)
{
    /* It is only held, and not changed. */
    struct adopting adopting = {.registry = registry,
                                .layout = (struct unshard_checkpoint *)(uintptr_t)checkpoint,
                                .out = adoption};
    *adoption = (struct adoption){.view = UNSHARD_NO_VIEW};
    int result = begin(&adopting);
    if (result == 0)
        result = adopt_each(&adopting);
    end(&adopting);
    return result;
}

static int compare_places(const struct component *left, const struct component *right)
{
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->directory, right->directory);
}

/* By place, and in each the newest first. */
static int compare_newest_first(const void *left, const void *right, void *context)
{
    const struct registry *registry = context;
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    uint64_t age_a = registry->components.entries[a].age;
    uint64_t age_b = registry->components.entries[b].age;
    int order = compare_places(&registry->all.components[a], &registry->all.components[b]);
    return order != 0 ? order : (age_a < age_b) - (age_a > age_b);
}

int registry_find_newest(const struct registry *registry, const struct number_list *components,
                         bool *newest)
{
    const struct component *all = registry->all.components;
    uint32_t count = components->count;
    uint32_t *sorted = malloc(((size_t)count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = components->numbers[i];
    qsort_r(sorted, count, sizeof *sorted, compare_newest_first, (void *)registry);
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || compare_places(&all[sorted[i - 1]], &all[sorted[i]]) != 0)
            newest[sorted[i]] = true;
    free(sorted);
    return 0;
}

void registry_list_components(const struct registry *registry, struct number_list *out)
{
    for (uint32_t i = 0; i < registry->all.component_count && out->count < out->capacity; i++)
        if (registry->components.entries[i].there)
            number_list_add(out, i);
}

void adoption_forget_names(struct adoption *adoption)
{
    number_list_free(&adoption->renamed);
    number_list_free(&adoption->names);
}

static void adoption_end(struct adoption *adoption)
{
    number_list_free(&adoption->files);
    number_list_free(&adoption->views);
    number_list_free(&adoption->components);
}

/* A file that several components have is of the first one. */
static void note_component(struct registry *registry, uint32_t number)
{
    const struct component *component = &registry->all.components[number];
    for (uint32_t i = 0; i < component->file_count; i++) {
        struct source_file *file = &registry->all.files[component->files[i]];
        if (file->component == NO_COMPONENT)
            file->component = number;
    }
}

void registry_commit(struct registry *registry, struct adoption *adoption)
{
    for (uint32_t i = 0; i < adoption->components.count; i++)
        note_component(registry, adoption->components.numbers[i]);
    for (uint32_t i = 0; i < adoption->components.count; i++)
        registry->components.entries[adoption->components.numbers[i]].there = true;
    registry->all.file_count = registry->files.end;
    registry->all.view_count = registry->views.end;
    registry->all.component_count = registry->components.end;
    adoption_end(adoption);
}

/* ---- leaving -----------------------------------------------------------------------------------
 */

static void need_file_less(struct registry *registry, uint32_t file)
{
    if (--registry->files.entries[file].needed == 0 && registry->leaving != NULL)
        registry->leaving->unneeded(registry->leaving->context, file);
}

static void clear_view(struct registry *registry, uint32_t number)
{
    struct view *view = &registry->all.views[number];
    for (uint32_t file = view_next_file(view, 0); file != EXTENT_LITERAL;
         file = view_next_file(view, file + 1))
        need_file_less(registry, file);
    if (!view->lent)
        extent_map_free_renumbered(&view->map);
    *view = (struct view){0};
}

static void clear_component(struct registry *registry, uint32_t number)
{
    struct component *component = &registry->all.components[number];
    for (uint32_t i = 0; i < component->file_count; i++) {
        struct source_file *file = &registry->all.files[component->files[i]];
        need_file_less(registry, component->files[i]);
        if (file->component == number)
            file->component = NO_COMPONENT;
    }
    *component = (struct component){0};
}

static void clear_file(struct registry *registry, uint32_t number)
{
    const struct gathered *gathered = registry->all.files[number].gathered;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        need_file_less(registry, gathered->sources[i].file);
    registry->all.files[number] = (struct source_file){0};
}

void registry_cancel(struct registry *registry, struct adoption *adoption)
{
    for (uint32_t i = adoption->components.count; i-- > 0;) {
        clear_component(registry, adoption->components.numbers[i]);
        unshard_layout_release(
            give_number_back(&registry->components, adoption->components.numbers[i]));
    }
    for (uint32_t i = adoption->views.count; i-- > 0;) {
        clear_view(registry, adoption->views.numbers[i]);
        unshard_layout_release(give_number_back(&registry->views, adoption->views.numbers[i]));
    }
    for (uint32_t i = adoption->files.count; i-- > 0;) {
        clear_file(registry, adoption->files.numbers[i]);
        unshard_layout_release(give_number_back(&registry->files, adoption->files.numbers[i]));
    }
    adoption_end(adoption);
}

/* Where the need of a view is counted. */
static uint32_t *needed(const struct registry *registry, uint32_t view)
{
    uint32_t component = registry->all.views[view].component;
    return component != NO_COMPONENT ? &registry->components.entries[component].needed
                                     : &registry->views.entries[view].needed;
}

void registry_need(struct registry *registry, uint32_t view)
{
    ++*needed(registry, view);
}

bool registry_need_less(struct registry *registry, uint32_t view)
{
    return --*needed(registry, view) == 0;
}

bool registry_is_needed(const struct registry *registry, uint32_t view)
{
    return *needed(registry, view) > 0;
}

int registry_group(const struct registry *registry, uint32_t view, struct number_list *out)
{
    uint32_t component = registry->all.views[view].component;
    for (uint32_t v = component == NO_COMPONENT ? view : 0; v < registry->all.view_count; v++) {
        if (v != view && (component == NO_COMPONENT || registry->views.entries[v].layout == NULL ||
                          registry->all.views[v].component != component))
            continue;
        if (number_list_reserve(out, 1) != 0)
            return -ENOMEM;
        number_list_add(out, v);
        if (component == NO_COMPONENT)
            break;
    }
    return 0;
}

void registry_release_group(struct registry *registry, const struct number_list *views,
                            const struct registry_leaving *leaving)
{
    uint32_t component = registry->all.views[views->numbers[0]].component;
    registry->leaving = leaving;
    if (component != NO_COMPONENT) {
        clear_component(registry, component);
        leaving->layout(leaving->context, give_number_back(&registry->components, component));
    }
    for (uint32_t i = 0; i < views->count; i++) {
        forget_index(registry, views->numbers[i]);
        clear_view(registry, views->numbers[i]);
        leaving->layout(leaving->context, give_number_back(&registry->views, views->numbers[i]));
    }
    registry->leaving = NULL;
}

bool registry_file_is_needed(const struct registry *registry, uint32_t file)
{
    return registry->files.entries[file].needed > 0;
}

void registry_hide_file(struct registry *registry, uint32_t file)
{
    unlink_entry(&registry->files, file);
    registry->files.entries[file].hidden = true;
}

void registry_release_file(struct registry *registry, uint32_t file,
                           const struct registry_leaving *leaving)
{
    registry->leaving = leaving;
    clear_file(registry, file);
    leaving->layout(leaving->context, give_number_back(&registry->files, file));
    registry->leaving = NULL;
}

static void release_all(struct registry_kind *kind)
{
    for (uint32_t i = 0; kind->entries != NULL && i < kind->end; i++)
        if (kind->entries[i].layout != NULL) {
            free(kind->entries[i].own);
            unshard_layout_release(kind->entries[i].layout);
        }
    kind_free(kind);
}

void registry_free(struct registry *registry)
{
    for (uint32_t v = 0; registry->all.views != NULL && v < registry->views.end; v++)
        if (!registry->all.views[v].lent)
            extent_map_free_renumbered(&registry->all.views[v].map);
    lazy_array_free(registry->all.files, registry->files.room, sizeof *registry->all.files);
    lazy_array_free(registry->all.views, registry->views.room, sizeof *registry->all.views);
    lazy_array_free(registry->all.components, registry->components.room,
                    sizeof *registry->all.components);
    release_all(&registry->files);
    release_all(&registry->views);
    release_all(&registry->components);
}

int registry_init(struct registry *registry, const struct unshard_checkpoint *place)
{
    uint32_t files = place->file_count + REGISTRY_MOST, views = place->view_count + REGISTRY_MOST;
    uint32_t components = place->component_count + REGISTRY_MOST;
    *registry = (struct registry){.all = {.source = place->source,
                                          .source_fd = place->source_fd,
                                          .cover = place->cover,
                                          .borrowed = true,
                                          .options = place->options,
                                          .repository = place->repository,
                                          .notes = place->notes,
                                          .note_count = place->note_count,
                                          .problems = place->problems,
                                          .problem_count = place->problem_count,
                                          .file_room = files,
                                          .view_room = views}};
    struct unshard_checkpoint *all = &registry->all;
    all->files = lazy_array_new(files, sizeof *all->files);
    all->views = lazy_array_new(views, sizeof *all->views);
    all->components = lazy_array_new(components, sizeof *all->components);
    bool made = kind_init(&registry->files, files) == 0;
    made = kind_init(&registry->views, views) == 0 && made;
    made = kind_init(&registry->components, components) == 0 && made;
    if (made && all->files != NULL && all->views != NULL && all->components != NULL)
        return 0;
    registry_free(registry);
    return -ENOMEM;
}
