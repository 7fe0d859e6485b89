/* SPDX-License-Identifier: MIT */
#include "tree/trace.h"

#include "base/error.h"
#include "base/parallel.h"
#include "digest/list_name.h"
#include "tree/discovery.h"
#include "tree/loader_names.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Within so long two changes of a file may have the same time. */
#define TICK_NS 20000000
/* A time that lies further ahead is of another clock. */
#define AHEAD_NS 1000000000

/* ---- remembering -------------------------------------------------------------------------------
 */

struct tracer {
    struct discovery *discovery;
    struct trace *trace;
};

static const struct scan_entry *entry_of(const struct discovery *discovery, uint32_t entry)
{
    return &discovery->scan.entries[entry];
}

/* By its name discovery may read it, or compare it with others. */
static bool may_be_read(const char *name)
{
    struct weight_name parsed;
    if (format_describes_set(name) || loader_name_may_be_weights(name) ||
        digest_list_name(name).kind != DIGEST_LIST_NOT_ONE || strcmp(name, LOADER_MODEL_INDEX) == 0)
        return true;
    return weight_name_parse(name, &parsed) &&
           (parsed.kind == WEIGHT_NAME_INDEX || format_of_extension(parsed.extension) != NULL);
}

/* Shown as it is, and nothing depends on it. */
static bool is_plain(const struct discovery *discovery, const struct scan_entry *entry)
{
    if (entry->kind != SCAN_FILE || entry->target != NULL || entry->file == SCAN_NONE ||
        entry->view == UNSHARD_NO_VIEW || entry->claimed || entry->hidden || entry->unlisted ||
        entry->replaced || entry->told_of || may_be_read(entry->name))
        return false;
    const struct source_file *file = &discovery->checkpoint->files[entry->file];
    return !file->failed && file->expectation == NULL;
}

static enum traced_use use_of(const struct discovery *discovery, const struct scan_entry *entry)
{
    switch (entry->kind) {
    case SCAN_DIRECTORY:
        return TRACED_DIRECTORY;
    case SCAN_FILE:
        return is_plain(discovery, entry) ? TRACED_FILE : TRACED_READ;
    default:
        return TRACED_UNUSED;
    }
}

static void note_age(struct tracer *tracer, const struct scan_entry *entry)
{
    int64_t began = tracer->discovery->scan.began_ns;
    if (entry->kind == SCAN_FILE && entry->ctime_ns > began - TICK_NS &&
        entry->ctime_ns < began + AHEAD_NS)
        tracer->trace->young = true;
}

static int trace_children(struct tracer *tracer)
{
    struct discovery *discovery = tracer->discovery;
    struct trace *trace = tracer->trace;
    const struct scan_entry *focus = entry_of(discovery, discovery->scan.focus);
    trace->path = focus->path;
    trace->self = focus->seen;
    trace->child_count = focus->child_count;
    trace->children = arena_alloc_array(&discovery->checkpoint->arena, focus->child_count,
                                        sizeof *trace->children);
    if (trace->children == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < focus->child_count; i++) {
        const struct scan_entry *entry = entry_of(discovery, focus->first_child + i);
        enum traced_use use = use_of(discovery, entry);
        trace->children[i] =
            (struct traced_child){.seen = entry->seen, .use = use, .file = entry->file};
        if (use == TRACED_READ)
            note_age(tracer, entry);
    }
    return 0;
}

/* What stands for a component of which no file is there (components.c) looks like the directory. */
static bool is_self_used(const struct unshard_checkpoint *layout)
{
    for (uint32_t i = 0; i < layout->view_count; i++)
        if (layout->views[i].added && layout->views[i].unreadable)
            return true;
    return false;
}

static bool is_unread(const struct unshard_checkpoint *layout)
{
    bool unread = false;
    for (uint32_t i = 0; i < layout->file_count && !unread; i++)
        unread = layout->files[i].error != NULL && error_is_of_storage(layout->files[i].error);
    for (uint32_t i = 0; i < layout->component_count && !unread; i++)
        unread = layout->components[i].failed && error_is_of_storage(&layout->components[i].error);
    for (uint32_t i = 0; i < layout->problem_count && !unread; i++)
        unread = error_is_of_storage(&layout->problems[i]);
    return unread;
}

static void add_name(struct trace *trace, const char *directory, const char *name, struct seen seen)
{
    if (trace->names != NULL)
        trace->names[trace->name_count] =
            (struct traced_name){.directory = directory, .name = name, .seen = seen};
    trace->name_count++;
}

/* Adds or, as long as there is no room for them, counts. */
static void go_through_names(struct tracer *tracer)
{
    const struct scan *scan = &tracer->discovery->scan;
    struct trace *trace = tracer->trace;
    trace->name_count = 0;
    for (uint32_t i = 0; i < scan->count; i++) {
        const struct scan_entry *directory = &scan->entries[i];
        for (uint32_t at = directory->first_single; at != 0; at = scan->entries[at].next_single) {
            const struct scan_entry *entry = &scan->entries[at];
            struct seen seen = entry->seen;
            if (at == scan->focus)
                continue;
            if (entry->kind == SCAN_DIRECTORY)
                seen.rest = 0;
            note_age(tracer, entry);
            add_name(trace, directory->path, entry->name, seen);
        }
    }
    for (const struct scan_absent *at = scan->absent; at != NULL; at = at->next)
        add_name(trace, scan->entries[at->directory].path, at->name, (struct seen){0});
    for (const struct scan_outside *at = scan->outside; at != NULL; at = at->next)
        add_name(trace, NULL, at->path, at->seen);
}

static int trace_names(struct tracer *tracer)
{
    struct trace *trace = tracer->trace;
    go_through_names(tracer);
    trace->names = arena_alloc_array(&tracer->discovery->checkpoint->arena, trace->name_count,
                                     sizeof *trace->names);
    if (trace->names == NULL)
        return -ENOMEM;
    go_through_names(tracer);
    return 0;
}

static uint64_t add_seen(uint64_t hash, struct seen seen)
{
    return XXH3_64bits_withSeed(&seen, sizeof seen, hash);
}

static bool is_other_listing(const struct scan *scan, uint32_t entry)
{
    return entry != scan->focus && scan->entries[entry].listed && !scan->entries[entry].made;
}

static int trace_listings(struct tracer *tracer)
{
    const struct scan *scan = &tracer->discovery->scan;
    struct trace *trace = tracer->trace;
    uint32_t count = 0;
    for (uint32_t i = 0; i < scan->count; i++)
        count += is_other_listing(scan, i);
    trace->listings =
        arena_alloc_array(&tracer->discovery->checkpoint->arena, count, sizeof *trace->listings);
    if (trace->listings == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < scan->count; i++) {
        const struct scan_entry *directory = &scan->entries[i];
        if (!is_other_listing(scan, i))
            continue;
        uint64_t hash = 0;
        for (uint32_t k = 0; k < directory->child_count; k++) {
            const struct scan_entry *entry = &scan->entries[directory->first_child + k];
            note_age(tracer, entry);
            hash = add_seen(hash, entry->seen);
        }
        trace->listings[trace->listing_count++] =
            (struct traced_listing){.path = directory->path, .seen = hash};
    }
    return 0;
}

int trace_make(struct discovery *discovery)
{
    struct tracer tracer = {.discovery = discovery};
    if (discovery->scan.focus == SCAN_NONE)
        return 0;
    tracer.trace = arena_alloc(&discovery->checkpoint->arena, sizeof *tracer.trace);
    if (tracer.trace == NULL || trace_children(&tracer) != 0 || trace_names(&tracer) != 0 ||
        trace_listings(&tracer) != 0)
        return -ENOMEM;
    tracer.trace->self_is_used = is_self_used(discovery->checkpoint);
    tracer.trace->unread = is_unread(discovery->checkpoint);
    discovery->checkpoint->trace = tracer.trace;
    return 0;
}

/* ---- looking again -----------------------------------------------------------------------------
 */

enum finding { FOUND_SAME, FOUND_RETOUCHED, FOUND_OTHER };

struct looker {
    struct unshard_checkpoint *layout;
    const struct trace *trace;
    atomic_bool other; /* something is not what it was, and matters */
    struct stat self;
    bool retouched;
    struct listing *listings; /* of the directory itself, then of the others */
    struct look *looks;       /* at all names of these */
    size_t look_count;
};

static void look_at_self(struct looker *looker)
{
    const char *path = looker->trace->path, *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char parent[PATH_MAX];
    struct look look = {.name = name};
    if (path[0] == '\0') {
        int fd = path_policy_resolve(looker->layout, "", &look.status);
        look.result = fd < 0 ? fd : 0;
        if (fd >= 0)
            close(fd);
    } else {
        snprintf(parent, sizeof parent, "%.*s", slash == NULL ? 0 : (int)(slash - path), path);
        look_take(looker->layout, parent, &look);
    }
    struct seen seen = look_seen(&look);
    looker->self = look.target != NULL ? look.target_status : look.status;
    free(look.target);
    looker->retouched = seen.rest != looker->trace->self.rest;
    if (seen.what != looker->trace->self.what || (looker->retouched && looker->trace->self_is_used))
        atomic_store(&looker->other, true);
}

/* Number 0 is the directory itself, the others are names elsewhere. */
static void look_at_number(void *context, uint32_t number)
{
    struct looker *looker = context;
    if (number == 0) {
        look_at_self(looker);
        return;
    }
    const struct traced_name *traced = &looker->trace->names[number - 1];
    struct look look = {.name = traced->name};
    if (traced->directory == NULL)
        look_outside(&look);
    else
        look_take(looker->layout, traced->directory, &look);
    struct seen seen = look_seen(&look);
    free(look.target);
    if (seen.what != traced->seen.what ||
        (traced->seen.rest != 0 && seen.rest != traced->seen.rest))
        atomic_store(&looker->other, true);
}

/* Lists the directories, and looks at all names. False: something is not what it was, or there is
 * no memory. */
static bool look_at_listings(struct looker *looker)
{
    const struct trace *trace = looker->trace;
    uint32_t count = trace->listing_count + 1;
    for (uint32_t i = 0; i < trace->listing_count; i++)
        looker->listings[i + 1].path = trace->listings[i].path;
    looker->listings[0].path = trace->path;
    if (!listings_read(looker->layout, looker->listings, count, SCAN_MAX_ENTRIES) ||
        looker->listings[0].result != 0 || looker->listings[0].name_count != trace->child_count)
        return false;
    size_t names = 0;
    for (uint32_t i = 0; i < count; i++)
        names += looker->listings[i].result == 0 ? looker->listings[i].name_count : 0;
    looker->looks = calloc(names + 1, sizeof *looker->looks);
    if (looker->looks == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        for (size_t k = 0; looker->listings[i].result == 0 && k < looker->listings[i].name_count;
             k++)
            looker->looks[looker->look_count++] = (struct look){
                .listing = &looker->listings[i], .name = looker->listings[i].names[k]};
    looks_take(looker->layout, looker->looks, (uint32_t)looker->look_count);
    return true;
}

static bool may_be_retouched(const struct traced_child *child, const struct look *look)
{
    return child->use == TRACED_DIRECTORY ||
           (child->use == TRACED_FILE &&
            (uint64_t)look->status.st_size <= CHECKPOINT_MAX_FILE_BYTES);
}

static enum finding compare_children(const struct looker *looker)
{
    enum finding finding = looker->retouched ? FOUND_RETOUCHED : FOUND_SAME;
    for (uint32_t i = 0; i < looker->trace->child_count; i++) {
        const struct traced_child *child = &looker->trace->children[i];
        struct seen seen = look_seen(&looker->looks[i]);
        if (seen.what != child->seen.what)
            return FOUND_OTHER;
        if (seen.rest == child->seen.rest || child->use == TRACED_UNUSED)
            continue;
        if (!may_be_retouched(child, &looker->looks[i]))
            return FOUND_OTHER;
        finding = FOUND_RETOUCHED;
    }
    return finding;
}

static bool are_listings_same(const struct looker *looker)
{
    const struct look *look = looker->looks + looker->trace->child_count;
    for (uint32_t i = 0; i < looker->trace->listing_count; i++) {
        const struct listing *listing = &looker->listings[i + 1];
        uint64_t hash = 0;
        for (size_t k = 0; listing->result == 0 && k < listing->name_count; k++)
            hash = add_seen(hash, look_seen(look++));
        if (hash != looker->trace->listings[i].seen)
            return false;
    }
    return true;
}

static enum finding look_again(struct looker *looker)
{
    if (looker->trace->young || looker->trace->unread)
        return FOUND_OTHER;
    parallel_run(looker->trace->name_count + 1, look_at_number, looker);
    if (atomic_load(&looker->other) || !look_at_listings(looker))
        return FOUND_OTHER;
    enum finding finding = compare_children(looker);
    return finding == FOUND_OTHER || are_listings_same(looker) ? finding : FOUND_OTHER;
}

int checkpoint_look_again(struct unshard_checkpoint *layout, struct unshard_checkpoint **out)
{
    struct looker looker = {.layout = layout, .trace = layout->trace};
    uint32_t count = looker.trace->listing_count + 1;
    atomic_init(&looker.other, false);
    looker.listings = calloc(count, sizeof *looker.listings);
    if (looker.listings == NULL)
        return -ENOMEM;
    enum finding finding = look_again(&looker);
    *out = NULL;
    if (finding == FOUND_SAME)
        *out = unshard_layout_hold(layout);
    if (finding == FOUND_RETOUCHED)
        *out = layout_retouch(layout,
                              &(struct retouch){.self = &looker.self, .children = looker.looks});
    for (size_t i = 0; i < looker.look_count; i++)
        free(looker.looks[i].target);
    free(looker.looks);
    listings_free(looker.listings, count);
    free(looker.listings);
    return finding == FOUND_RETOUCHED && *out == NULL ? -ENOMEM : 0;
}
