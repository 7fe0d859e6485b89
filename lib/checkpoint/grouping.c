/* SPDX-License-Identifier: MIT */
#include "checkpoint/discovery.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Further ones are not listed: an index may name any number of files. */
#define MAX_ABSENT 1000

/* A file of one directory whose name is one of weights. */
struct weight_file {
    uint32_t entry;
    enum weight_name_kind kind;
    bool legacy;
    uint32_t number, total, rank;
    const char *stem, *variant, *base, *extension, *merged_name, *index_name;
    const struct format *format;
    enum format_claim claim;
};

/* The weights of one format in a directory. */
struct directory_weights {
    struct weight_file *files; /* sorted by compare_weights */
    uint32_t count;
    uint32_t first_candidate;  /* of the directory, whatever its format */
    struct string_map *merged; /* merged names of the directory's candidates -> their numbers */
    uint32_t noted;            /* candidates before this one are in `merged` */
};

static const char *keep(struct discovery *discovery, const char *string)
{
    return arena_copy_string(&discovery->checkpoint->arena, string, strlen(string));
}

static struct scan_entry *entry_of(struct discovery *discovery, uint32_t entry)
{
    return &discovery->scan.entries[entry];
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
static bool claim_weight(const struct format *format, struct weight_name *name,
                         struct weight_file *out)
{
    char stem[WEIGHT_NAME_CAPACITY];
    out->format = format;
    out->claim = FORMAT_CLAIM_WEIGHTS;
    if (format->claim != NULL) {
        out->claim = format->claim(name->stem, name->extension, stem, sizeof stem);
        if (out->claim == FORMAT_CLAIM_NONE)
            return false;
        snprintf(name->stem, sizeof name->stem, "%s", stem);
    }
    if (format->shown_extension != NULL)
        snprintf(name->extension, sizeof name->extension, "%s", format->shown_extension);
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

static int collect_weights(struct discovery *discovery, uint32_t directory,
                           const struct format *format, struct directory_weights *out)
{
    const struct scan_entry *parent = entry_of(discovery, directory);
    out->count = 0;
    out->files = calloc(parent->child_count + 1U, sizeof *out->files);
    if (out->files == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < parent->child_count; i++) {
        const struct scan_entry *entry = entry_of(discovery, parent->first_child + i);
        struct weight_name name;
        struct weight_file *file = &out->files[out->count];
        if (entry->kind == SCAN_DIRECTORY || !weight_name_parse(entry->name, &name) ||
            format_of_extension(name.extension) != format || !claim_weight(format, &name, file))
            continue;
        file->entry = parent->first_child + i;
        if (fill_weight(discovery, &name, file) != 0)
            return -ENOMEM;
        out->count++;
    }
    qsort(out->files, out->count, sizeof *out->files, compare_weights);
    return 0;
}

struct candidate *discovery_add_candidate(struct discovery *discovery, const struct candidate *like)
{
    if (discovery->candidate_count == discovery->candidate_capacity) {
        uint32_t capacity =
            discovery->candidate_capacity == 0 ? 16 : discovery->candidate_capacity * 2;
        struct candidate *grown = realloc(discovery->candidates, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        discovery->candidates = grown;
        discovery->candidate_capacity = capacity;
    }
    struct candidate *candidate = &discovery->candidates[discovery->candidate_count++];
    *candidate = *like;
    return candidate;
}

static struct candidate *add_candidate(struct discovery *discovery, uint32_t directory,
                                       const struct weight_file *file)
{
    struct candidate like = {.directory = directory,
                             .stem = file->stem,
                             .variant = file->variant,
                             .base = file->base,
                             .extension = file->extension,
                             .merged_name = file->merged_name,
                             .format = file->format,
                             .perhaps = file->claim == FORMAT_CLAIM_PERHAPS,
                             .index_entry = SCAN_NONE};
    return discovery_add_candidate(discovery, &like);
}

/* Puts the names of candidates that were added into the map. */
static int note_candidates(struct discovery *discovery, struct directory_weights *weights)
{
    for (; weights->noted < discovery->candidate_count; weights->noted++) {
        const char *name = discovery->candidates[weights->noted].merged_name;
        if (string_map_add(weights->merged, name, strlen(name), weights->noted, NULL) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Room for `count` members. */
static int reserve_members(struct discovery *discovery, struct candidate *candidate, size_t count)
{
    candidate->members =
        arena_alloc_array(&discovery->checkpoint->arena, count, sizeof *candidate->members);
    return candidate->members == NULL ? -ENOMEM : 0;
}

static void add_member(struct discovery *discovery, struct candidate *candidate, uint32_t entry)
{
    candidate->members[candidate->member_count++] = entry;
    entry_of(discovery, entry)->claimed = true;
    if (!candidate->passthrough && discovery->checkpoint->options.layout == UNSHARD_LAYOUT_MERGED)
        entry_of(discovery, entry)->hidden = true;
}

static void fail_candidate(struct candidate *candidate, const struct unshard_error *error)
{
    if (candidate->failed)
        return;
    candidate->failed = true;
    candidate->error = *error;
}

int candidate_add_absent(struct discovery *discovery, struct candidate *candidate, const char *path,
                         const struct unshard_error *error)
{
    fail_candidate(candidate, error);
    if (candidate->absent_count == MAX_ABSENT)
        return 0;
    const char *kept = keep(discovery, path);
    struct absent_shard *grown =
        realloc(candidate->absent, (candidate->absent_count + 1U) * sizeof *grown);
    if (grown != NULL)
        candidate->absent = grown;
    if (kept == NULL || grown == NULL)
        return -ENOMEM;
    grown[candidate->absent_count++] =
        (struct absent_shard){.path = kept, .file = SCAN_NONE, .error = *error};
    return 0;
}

/* "DIRECTORY/NAME", in malloc'd memory; NULL without memory. */
static char *path_in(const struct discovery *discovery, uint32_t directory, const char *name)
{
    const char *parent = discovery->scan.entries[directory].path;
    struct text path = {0};
    text_printf(&path, "%s%s%s", parent, parent[0] != '\0' ? "/" : "", name);
    return text_take(&path);
}

/* The merged name is a complete file on disk already: that one is the component. */
static int use_complete_file(struct discovery *discovery, struct candidate *candidate,
                             uint32_t entry)
{
    if (candidate->failed)
        note_add(&candidate->notes, &discovery->checkpoint->arena, "%s.", candidate->error.message);
    candidate->passthrough = true;
    candidate->failed = false;
    candidate->member_count = 0;
    if (reserve_members(discovery, candidate, 1) != 0)
        return -ENOMEM;
    entry_of(discovery, entry)->hidden = false;
    add_member(discovery, candidate, entry);
    return 0;
}

/* Takes a name of the index as a member, or notes why it cannot be one. */
static int claim_name(struct discovery *discovery, struct candidate *candidate, const char *name)
{
    const char *index_path = entry_of(discovery, candidate->index_entry)->path;
    uint32_t found = scan_find(&discovery->scan, candidate->directory, name);
    struct unshard_error error;
    if (found == SCAN_NONE) {
        error_set(&error, "missing", ENOENT, "%s: weight_map names %s, which is missing",
                  index_path, name);
    } else if (entry_of(discovery, found)->kind == SCAN_FILE) {
        add_member(discovery, candidate, found);
        return 0;
    } else if (entry_of(discovery, found)->kind == SCAN_DIRECTORY) {
        error_set(&error, "not-regular", EISDIR, "%s: weight_map names %s, which is a directory",
                  index_path, name);
    } else {
        error = entry_of(discovery, found)->problem;
        entry_of(discovery, found)->hidden = true;
    }
    char *path = path_in(discovery, candidate->directory, name);
    int result = path != NULL ? candidate_add_absent(discovery, candidate, path, &error) : -ENOMEM;
    free(path);
    return result;
}

static int compare_member_paths(const void *a, const void *b, void *context)
{
    const struct scan_entry *entries = context;
    return strcmp(entries[*(const uint32_t *)a].path, entries[*(const uint32_t *)b].path);
}

/* Claims what the index names, in the order of names: the index lists them by tensor. A name that
 * leads to no usable file makes the component failed. */
static int claim_named_shards(struct discovery *discovery, struct candidate *candidate)
{
    const struct index_file *index = &candidate->index;
    const char *index_path = entry_of(discovery, candidate->index_entry)->path;
    struct unshard_error error;
    if (reserve_members(discovery, candidate, index->file_count) != 0)
        return -ENOMEM;
    for (size_t i = 0; i < index->file_count; i++) {
        if (claim_name(discovery, candidate, index->files[i]) != 0)
            return -ENOMEM;
    }
    if (candidate->member_count > 1)
        qsort_r(candidate->members, candidate->member_count, sizeof *candidate->members,
                compare_member_paths, discovery->scan.entries);
    if (index->file_count == 0) {
        error_set(&error, "empty-index", EINVAL, "%s: weight_map names no shard", index_path);
        fail_candidate(candidate, &error);
    }
    return 0;
}

static int read_index(struct discovery *discovery, struct candidate *candidate)
{
    const struct scan_entry *entry = entry_of(discovery, candidate->index_entry);
    struct unshard_error error;
    char *json = NULL;
    size_t length = 0;
    int result = -EINVAL;
    if (entry->kind != SCAN_FILE) {
        fail_candidate(candidate, &entry->problem);
        return -EINVAL;
    }
    result = discovery_read_file(discovery, candidate->index_entry, INDEX_FILE_MAX_BYTES, &json,
                                 &length);
    if (result != 0) {
        error_set(&error, "unreadable", -result, "%s: cannot read: %s", entry->path,
                  strerrordesc_np(-result));
        fail_candidate(candidate, &error);
        return result;
    }
    result = index_file_parse(json, length, entry->path, entry->name, &candidate->index_arena,
                              &candidate->index, &error);
    if (result != 0)
        fail_candidate(candidate, &error);
    free(json);
    return result;
}

/* Claims the numbered shards of an index that cannot be used, so that they are not taken for more
 * than they are. */
static int claim_numbered_shards(struct discovery *discovery, struct candidate *candidate,
                                 const struct directory_weights *weights)
{
    if (reserve_members(discovery, candidate, weights->count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        if (file->kind == WEIGHT_NAME_SHARD &&
            strcmp(file->merged_name, candidate->merged_name) == 0 &&
            entry_of(discovery, file->entry)->kind == SCAN_FILE)
            add_member(discovery, candidate, file->entry);
    }
    return 0;
}

static bool is_member(const struct candidate *candidate, uint32_t entry)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (candidate->members[i] == entry)
            return true;
    return false;
}

/* What stands under the merged name on disk. */
static int settle_merged_name(struct discovery *discovery, struct candidate *candidate)
{
    uint32_t entry = scan_child(&discovery->scan, candidate->directory, candidate->merged_name,
                                strlen(candidate->merged_name));
    struct unshard_error error;
    if (entry == SCAN_NONE || candidate->passthrough)
        return 0;
    switch (entry_of(discovery, entry)->kind) {
    case SCAN_FILE:
        if (!is_member(candidate, entry)) {
            note_add(&candidate->notes, &discovery->checkpoint->arena,
                     "%s is complete and is shown as it is; the shards beside it are not used.",
                     entry_of(discovery, entry)->path);
            return use_complete_file(discovery, candidate, entry);
        }
        if (candidate->member_count == 1)
            return use_complete_file(discovery, candidate, entry);
        entry_of(discovery, entry)->hidden = true;
        return 0;
    case SCAN_DIRECTORY:
        error_set(&error, "name-taken", EEXIST,
                  "%s: the merged file would have this name, but it "
                  "is a directory",
                  entry_of(discovery, entry)->path);
        fail_candidate(candidate, &error);
        return 0;
    default:
        entry_of(discovery, entry)->hidden = true;
        return 0;
    }
}

static int group_index(struct discovery *discovery, uint32_t directory,
                       const struct directory_weights *weights, uint32_t number)
{
    const struct weight_file *file = &weights->files[number];
    struct candidate *candidate = add_candidate(discovery, directory, file);
    if (candidate == NULL)
        return -ENOMEM;
    candidate->index_entry = file->entry;
    candidate->index_name = file->index_name;
    int result = read_index(discovery, candidate) == 0
                     ? claim_named_shards(discovery, candidate)
                     : claim_numbered_shards(discovery, candidate, weights);
    if (result == 0)
        result = settle_merged_name(discovery, candidate);
    struct scan_entry *entry = entry_of(discovery, file->entry);
    /* An index of files that are shown as they are, under a name of its own, is shown with them. */
    bool both = discovery->checkpoint->options.layout == UNSHARD_LAYOUT_BOTH;
    entry->hidden = entry->kind == SCAN_FILE &&
                    !(both && (candidate->failed || file->format->shown_extension != NULL));
    return result;
}

/* The name of shard `number` of the set that `like` is a shard of; malloc'd, NULL without memory.
 */
static char *numbered_name(const char *like, uint32_t number)
{
    const char *middle = strstr(like, "-of-"), *digits = middle;
    for (const char *later = middle; later != NULL; later = strstr(later + 1, "-of-"))
        middle = digits = later;
    while (digits > like && digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    struct text name = {0};
    text_printf(&name, "%.*s%0*u%s", (int)(digits - like), like, (int)(middle - digits), number,
                middle);
    return text_take(&name);
}

/* Files are sorted by number, without doubles. Notes the numbers that are not there. */
static int add_missing_numbers(struct discovery *discovery, struct candidate *candidate,
                               const struct weight_file *files, uint32_t count)
{
    const char *like = entry_of(discovery, files[0].entry)->name;
    uint32_t missing = files[0].total - count, i = 0;
    for (uint32_t number = 1; missing > 0 && candidate->absent_count < MAX_ABSENT; number++) {
        if (i < count && files[i].number == number) {
            i++;
            continue;
        }
        char *name = numbered_name(like, number);
        char *path = name != NULL ? path_in(discovery, candidate->directory, name) : NULL;
        struct unshard_error error;
        int result = -ENOMEM;
        if (path != NULL) {
            error_set(&error, "missing", ENOENT, "%s: shard %u of %u is missing", path, number,
                      files[0].total);
            result = candidate_add_absent(discovery, candidate, path, &error);
        }
        free(name);
        free(path);
        if (result != 0)
            return result;
        missing--;
    }
    return 0;
}

/* Files of one merged name, sorted by total and number: can they be of one set? */
static int check_numbers(struct discovery *discovery, const struct weight_file *files,
                         uint32_t count, struct unshard_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct scan_entry *entry = entry_of(discovery, files[i].entry);
        if (files[i].number == 0 || files[i].number > files[i].total)
            return error_set(error, "bad-shard-number", EINVAL,
                             "%s: shard number %u is not in 1..%u", entry->path, files[i].number,
                             files[i].total);
        if (files[i].total != files[0].total)
            return error_set(error, "ambiguous-shards", EINVAL,
                             "%s: shards of %u and shards of %u, and no index tells which to use",
                             entry->path, files[0].total, files[i].total);
        if (i > 0 && files[i].number == files[i - 1].number)
            return error_set(error, "ambiguous-shards", EINVAL, "%s: another file is shard %u, too",
                             entry->path, files[i].number);
    }
    return 0;
}

static int group_numbered(struct discovery *discovery, uint32_t directory,
                          const struct weight_file *files, uint32_t count)
{
    struct unshard_error error;
    struct candidate *candidate = add_candidate(discovery, directory, &files[0]);
    if (candidate == NULL || reserve_members(discovery, candidate, count) != 0)
        return -ENOMEM;
    int result = 0;
    if (check_numbers(discovery, files, count, &error) != 0)
        fail_candidate(candidate, &error);
    else
        result = add_missing_numbers(discovery, candidate, files, count);
    for (uint32_t i = 0; i < count && result == 0; i++) {
        struct scan_entry *entry = entry_of(discovery, files[i].entry);
        if (entry->kind == SCAN_FILE) {
            add_member(discovery, candidate, files[i].entry);
        } else {
            entry->hidden = true;
            result = candidate_add_absent(discovery, candidate, entry->path, &entry->problem);
        }
    }
    return result != 0 ? result : settle_merged_name(discovery, candidate);
}

/* The candidates of a directory that have an index: they come first, sorted by merged name. */
struct indexed_range {
    uint32_t first, end;
};

static struct candidate *indexed_candidate(struct discovery *discovery, struct indexed_range range,
                                           const char *merged_name)
{
    while (range.first < range.end) {
        uint32_t middle = range.first + (range.end - range.first) / 2;
        int order = strcmp(merged_name, discovery->candidates[middle].merged_name);
        if (order == 0)
            return &discovery->candidates[middle];
        if (order < 0)
            range.end = middle;
        else
            range.first = middle + 1;
    }
    return NULL;
}

static void note_not_in_index(struct discovery *discovery, struct candidate *candidate,
                              uint32_t entry)
{
    note_add(&candidate->notes, &discovery->checkpoint->arena,
             "%s is not named by the index; it is shown as it is.",
             entry_of(discovery, entry)->path);
}

static int group_indexes(struct discovery *discovery, uint32_t directory,
                         const struct directory_weights *weights, struct indexed_range *out)
{
    out->first = out->end = discovery->candidate_count;
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        if (file->kind != WEIGHT_NAME_INDEX)
            break;
        struct candidate *other = indexed_candidate(discovery, *out, file->merged_name);
        if (other == NULL) {
            int result = group_index(discovery, directory, weights, i);
            if (result != 0)
                return result;
            out->end = discovery->candidate_count;
        } else {
            entry_of(discovery, file->entry)->hidden = true;
            note_add(&other->notes, &discovery->checkpoint->arena,
                     "%s is a second index of the same files; it is not used.",
                     entry_of(discovery, file->entry)->path);
        }
    }
    return 0;
}

/* What each rank of a distributed save wrote. Which of them there should be is told by what they
 * hold: together it must be whole tensors. */
static int group_ranks(struct discovery *discovery, uint32_t directory,
                       const struct weight_file *files, uint32_t count)
{
    struct candidate *candidate = add_candidate(discovery, directory, &files[0]);
    if (candidate == NULL || reserve_members(discovery, candidate, count) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct scan_entry *entry = entry_of(discovery, files[i].entry);
        int result = 0;
        if (entry->kind == SCAN_FILE) {
            add_member(discovery, candidate, files[i].entry);
        } else {
            entry->hidden = true;
            result = candidate_add_absent(discovery, candidate, entry->path, &entry->problem);
        }
        if (result != 0)
            return result;
    }
    return settle_merged_name(discovery, candidate);
}

/* The same tensors are there in one piece: what a save leaves that puts them together itself. */
static void leave_out_pieces(struct discovery *discovery, struct candidate *whole,
                             const struct weight_file *files, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        entry_of(discovery, files[i].entry)->hidden =
            entry_of(discovery, files[i].entry)->kind == SCAN_FILE &&
            discovery->checkpoint->options.layout == UNSHARD_LAYOUT_MERGED;
    note_add(&whole->notes, &discovery->checkpoint->arena,
             "%s and others like it are pieces of the same tensors; they are not used.",
             entry_of(discovery, files[0].entry)->path);
}

/* Files of one merged name from files[0] on, that no index names: those of one rank each, or those
 * that are not. */
static uint32_t count_alike(struct discovery *discovery, const struct weight_file *files,
                            uint32_t count)
{
    uint32_t alike = 1;
    while (alike < count && files[alike].kind == WEIGHT_NAME_SHARD &&
           !entry_of(discovery, files[alike].entry)->claimed &&
           strcmp(files[alike].merged_name, files[0].merged_name) == 0 &&
           (files[alike].rank > 0) == (files[0].rank > 0))
        alike++;
    return alike;
}

static int group_shards(struct discovery *discovery, uint32_t directory, struct indexed_range range,
                        struct directory_weights *weights)
{
    uint32_t end;
    for (uint32_t i = 0; i < weights->count; i = end) {
        const struct weight_file *file = &weights->files[i];
        int result = 0;
        uint32_t other;
        end = i + 1;
        if (file->kind != WEIGHT_NAME_SHARD || entry_of(discovery, file->entry)->claimed)
            continue;
        struct candidate *indexed = indexed_candidate(discovery, range, file->merged_name);
        if (indexed != NULL && indexed->passthrough) {
            entry_of(discovery, file->entry)->hidden =
                discovery->checkpoint->options.layout == UNSHARD_LAYOUT_MERGED;
            continue;
        }
        uint32_t alike = count_alike(discovery, file, weights->count - i);
        if (indexed != NULL && file->rank == 0) {
            note_not_in_index(discovery, indexed, file->entry);
            continue;
        }
        end = i + alike;
        if (file->rank > 0 &&
            string_map_find(weights->merged, file->merged_name, strlen(file->merged_name), &other))
            leave_out_pieces(discovery, &discovery->candidates[other], file, alike);
        else if (file->rank > 0)
            result = group_ranks(discovery, directory, file, alike);
        else
            result = group_numbered(discovery, directory, file, alike);
        if (result == 0)
            result = note_candidates(discovery, weights);
        if (result != 0)
            return result;
    }
    return 0;
}

/* Loaders look into the directory for files of certain names or follow an index: one more file
 * that looks like weights, made from one that did not, would be loaded with them. */
static bool is_model_directory(const struct discovery *discovery,
                               const struct directory_weights *weights)
{
    static const char *const names[] = {"model", "diffusion_pytorch_model", "consolidated"};
    for (uint32_t i = weights->first_candidate; i < discovery->candidate_count; i++) {
        const struct candidate *candidate = &discovery->candidates[i];
        if (candidate->index_entry != SCAN_NONE || candidate->member_count > 1)
            return true;
        for (size_t k = 0; k < sizeof names / sizeof *names && !candidate->perhaps; k++)
            if (strcmp(candidate->stem, names[k]) == 0)
                return true;
    }
    return false;
}

/* The format shows a file of its own for it: that is to have a name that no other has. */
static int group_converted_file(struct discovery *discovery, uint32_t directory,
                                const struct weight_file *file, struct directory_weights *weights)
{
    uint32_t other;
    if (string_map_find(weights->merged, file->merged_name, strlen(file->merged_name), &other)) {
        note_add(&discovery->candidates[other].notes, &discovery->checkpoint->arena,
                 "%s would have the same name; it is shown as it is.",
                 entry_of(discovery, file->entry)->path);
        return 0;
    }
    if (file->claim == FORMAT_CLAIM_PERHAPS && is_model_directory(discovery, weights))
        return 0;
    struct candidate *candidate = add_candidate(discovery, directory, file);
    if (candidate == NULL || reserve_members(discovery, candidate, 1) != 0)
        return -ENOMEM;
    add_member(discovery, candidate, file->entry);
    int result = settle_merged_name(discovery, candidate);
    return result == 0 ? note_candidates(discovery, weights) : result;
}

static int group_single_files(struct discovery *discovery, uint32_t directory,
                              struct indexed_range range, struct directory_weights *weights)
{
    for (uint32_t i = 0; i < weights->count; i++) {
        const struct weight_file *file = &weights->files[i];
        const struct scan_entry *entry = entry_of(discovery, file->entry);
        if (file->kind != WEIGHT_NAME_SINGLE || entry->kind != SCAN_FILE || entry->claimed)
            continue;
        if (file->format->shown_extension != NULL) {
            int result = group_converted_file(discovery, directory, file, weights);
            if (result != 0)
                return result;
            continue;
        }
        if (range.first < range.end)
            note_not_in_index(discovery, &discovery->candidates[range.first], file->entry);
        struct candidate *candidate = add_candidate(discovery, directory, file);
        if (candidate == NULL)
            return -ENOMEM;
        candidate->merged_name = entry->name;
        int result = use_complete_file(discovery, candidate, file->entry);
        if (result != 0)
            return result;
    }
    return 0;
}

/* Leaves out files of which an earlier format shows another form under the same name. */
static void drop_taken_names(struct discovery *discovery, struct directory_weights *weights)
{
    uint32_t kept = 0, other;
    for (uint32_t i = 0; i < weights->count; i++) {
        struct weight_file *file = &weights->files[i];
        struct scan_entry *entry = entry_of(discovery, file->entry);
        if (!string_map_find(weights->merged, file->merged_name, strlen(file->merged_name),
                             &other)) {
            weights->files[kept++] = *file;
            continue;
        }
        struct candidate *candidate = &discovery->candidates[other];
        entry->hidden = !candidate->failed && entry->kind == SCAN_FILE &&
                        discovery->checkpoint->options.layout == UNSHARD_LAYOUT_MERGED;
        note_add(&candidate->notes, &discovery->checkpoint->arena,
                 "%s is another form of it, which is not used.", entry->path);
    }
    weights->count = kept;
}

static int group_format(struct discovery *discovery, uint32_t directory,
                        const struct format *format, struct directory_weights *weights)
{
    struct indexed_range range;
    int result = collect_weights(discovery, directory, format, weights);
    if (result == 0) {
        drop_taken_names(discovery, weights);
        result = group_indexes(discovery, directory, weights, &range);
    }
    if (result == 0)
        result = note_candidates(discovery, weights);
    if (result == 0)
        result = group_shards(discovery, directory, range, weights);
    if (result == 0)
        result = group_single_files(discovery, directory, range, weights);
    if (result == 0)
        result = note_candidates(discovery, weights);
    free(weights->files);
    weights->files = NULL;
    return result;
}

static int group_directory(struct discovery *discovery, uint32_t directory)
{
    struct string_map merged = {0};
    struct directory_weights weights = {.first_candidate = discovery->candidate_count,
                                        .noted = discovery->candidate_count,
                                        .merged = &merged};
    int result = 0;
    for (size_t i = 0; i < format_count && result == 0; i++) {
        const struct format *format = &format_table[i];
        if (!format->pickle || discovery->checkpoint->options.pickle != UNSHARD_PICKLE_ASIS)
            result = group_format(discovery, directory, format, &weights);
    }
    if (result == 0 && discovery->checkpoint->options.pickle != UNSHARD_PICKLE_ASIS) {
        uint32_t other;
        bool taken = string_map_find(&merged, DISTRIBUTED_NAME, strlen(DISTRIBUTED_NAME), &other);
        result = grouping_find_distributed(discovery, directory, taken);
    }
    string_map_free(&merged);
    return result;
}

int grouping_find(struct discovery *discovery, struct unshard_error *error)
{
    int result = 0;
    for (uint32_t i = 0; i < discovery->scan.count && result == 0; i++)
        if (entry_of(discovery, i)->kind == SCAN_DIRECTORY)
            result = group_directory(discovery, i);
    return result == 0 ? 0 : error_no_memory(error);
}
