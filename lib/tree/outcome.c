/* SPDX-License-Identifier: MIT
 *
 * What comes of a group of files. Grouping says which files may belong together, by their names and
 * by indexes; the headers say what they hold; here it is decided, in one place and in this order:
 *
 *   what is there                                               what comes of it
 *   1 a file by itself                                          shown as it is, as a component
 *   2 one whose name only may be that of weights, and is not    as it is, no component
 *   3 an index of which no shard is there                       as it is
 *   4 a set, and a file of the name that the merged one has,    as it is
 *     or a directory; one of its files is in another set, too;
 *     no index, and PyTorch files of the same
 *   5 numbers that make no set: two totals, a number twice      as it is
 *   6 what a format cannot show as something else               as it is
 *   7 a tensor in two files, and no index that says which, or   as it is
 *     an index of which no tensor is there
 *   8 one of a numbered set, of a name that no loader knows     as it is
 *   9 shards that are missing, of which one is being            as it is
 *     downloaded
 *  10 shards that are missing, or cannot be used                damaged: an error
 *  11 all else                                                  merged
 *
 * As it is: every file under its name, the index too, and a note. Some loaders follow an index
 * (diffusers, vLLM, SGLang), others take the single file first (transformers, accelerate) or all
 * files there are (TensorRT-LLM). Where these would load different things from disk (3, 4, 7) a
 * merged file would have to take a side; so each is left to find what it finds there. Without an
 * index those that look for names do not find shards, but pytorch_model.bin if there is one.
 *
 * Files that are numbered and do not belong together (LoRA files by training step) hold the same
 * tensors (7), or one of them is left (8).
 *
 * The splits of a GGUF say that they are: what is contradictory among them (7, 8) is damaged, and
 * files that do not say so are no set (5).
 *
 * What is being downloaded (9) is not damaged: it is merged as soon as it is all there.
 *
 * Damaged: loaders fail on disk as well. Here they fail with an error that the status explains.
 *
 * layout=shards: nothing is merged, and nobody fails but who reads bytes that are not what they
 * should be. The files of a component (1, 10, 11) are shown as they are, all of what is there of
 * them; what is missing, or wrong with them together, is told in notes.
 */
#include "tree/outcome.h"

#include "base/error.h"
#include "tree/grouping.h"
#include "tree/loader_names.h"
#include "tree/tensor_owners.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum outcome { OUTCOME_COMPONENT, OUTCOME_AS_IS };

struct settling {
    struct discovery *discovery;
    struct candidate **kept; /* the candidates to be */
    uint32_t kept_count;
};

static struct scan_entry *entry_at(const struct settling *settling, uint32_t entry)
{
    return &settling->discovery->scan.entries[entry];
}

/* ---- the table ---------------------------------------------------------------------------------
 */

/* The first member that says it cannot be shown as something else, or NULL. */
static const struct header *unsupported(const struct candidate *candidate)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (candidate->headers[i].result == -ENOTSUP)
            return &candidate->headers[i];
    return NULL;
}

static bool all_read(const struct candidate *candidate)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (candidate->headers[i].result != 0 && !candidate->headers[i].truncated)
            return false;
    return true;
}

/* A member that another candidate has, too, or NULL. */
static const struct scan_entry *shared_member(const struct settling *settling,
                                              const struct candidate *candidate)
{
    for (uint32_t i = 0; i < candidate->member_count; i++)
        if (entry_at(settling, candidate->members[i])->shared)
            return entry_at(settling, candidate->members[i]);
    return NULL;
}

/* What transformers and diffusers find by its name where shards have no index, as they find no file
 * of these; or NULL. */
static const struct scan_entry *rival(const struct settling *settling,
                                      const struct candidate *candidate)
{
    struct scan *scan = &settling->discovery->scan;
    if (candidate->index_entry != SCAN_NONE || candidate->passthrough ||
        candidate->format->is_shard != NULL || candidate->format->shown_as != NULL)
        return NULL;
    for (int index = 0; index < 2; index++) {
        char name[2 * WEIGHT_NAME_CAPACITY];
        if (!loader_name_rival(candidate->stem, candidate->variant, index != 0, name, sizeof name))
            continue;
        uint32_t found = scan_child(scan, candidate->directory, name, strlen(name));
        if (found != SCAN_NONE && scan->entries[found].kind == SCAN_FILE)
            return &scan->entries[found];
    }
    return NULL;
}

/* Files of a format whose shards say what they are, and none of them does. */
static bool is_no_split(const struct candidate *candidate)
{
    if (candidate->format->is_shard == NULL || candidate->passthrough ||
        candidate->member_count + candidate->absent_seen < 2)
        return false;
    size_t read = 0;
    for (uint32_t i = 0; i < candidate->member_count; i++) {
        const struct header *header = &candidate->headers[i];
        if (header->result == 0 && candidate->format->is_shard(&header->set))
            return false;
        read += header->result == 0;
    }
    return read > 0;
}

/* One of the shards that the numbers ask for, and nothing else says that there is a set. */
static bool is_one_of_many(const struct candidate *candidate)
{
    return candidate->index_entry == SCAN_NONE && candidate->member_count == 1 &&
           candidate->missing > 0 && candidate->missing == candidate->absent_seen &&
           candidate->format->is_shard == NULL && !loader_name_is_stem(candidate->stem);
}

/* Nothing is wrong with the set but that it is not all there yet. */
static bool is_coming(const struct candidate *candidate)
{
    return candidate->unfinished && candidate->missing > 0 &&
           candidate->missing == candidate->absent_seen && !candidate->as_files;
}

/* Reads what the files say about tensors of which each holds a part. */
static int find_parts(const struct settling *settling, struct candidate *candidate)
{
    struct unshard_error error = {.offset = UNSHARD_NO_OFFSET};
    const struct format *format = candidate->format;
    int result = 0;
    if (format->find_parts == NULL)
        return 0;
    for (uint32_t i = 0; i < candidate->member_count && result == 0; i++) {
        struct header *header = &candidate->headers[i];
        const char *path = settling->discovery->checkpoint->files[header->file].path;
        result = format->find_parts(&header->set, path, &header->arena, &error);
        if (result == -ENOMEM && header->arena.refused)
            result = headers_no_memory_left(&error, path, EFBIG);
    }
    if (result != 0 && result != -ENOMEM)
        candidate_fail(candidate, &error);
    return result;
}

/* Rows 7 to 11, for what headers are needed. Fills in *why for what is shown as it is. */
static int decide_by_headers(const struct settling *settling, struct candidate *candidate,
                             enum outcome *outcome, struct unshard_error *why)
{
    /* Of an index that cannot be used, or not all of it, there is nothing to compare with. */
    bool comparable = !candidate->failed || candidate->index_entry == SCAN_NONE;
    int result = -EINVAL;
    if (comparable && all_read(candidate))
        result = find_parts(settling, candidate);
    if (result == 0) {
        result = tensor_owners_settle(settling->discovery, candidate, why);
        /* Parts of what is one file by definition: no loader takes them one by one. */
        if (result == -EINVAL && candidate->format->is_shard != NULL)
            candidate_fail(candidate, why);
        else if (result == -EINVAL)
            *outcome = OUTCOME_AS_IS;
    }
    if (*outcome == OUTCOME_COMPONENT && is_one_of_many(candidate)) {
        *outcome = OUTCOME_AS_IS;
        *why = candidate->error;
    }
    return result == -ENOMEM ? result : 0;
}

static int decide(const struct settling *settling, struct candidate *candidate,
                  enum outcome *outcome, struct unshard_error *why)
{
    const struct header *header;
    const struct scan_entry *member;
    *outcome = OUTCOME_AS_IS;
    if (candidate->index_entry != SCAN_NONE && candidate->member_count == 0 &&
        candidate->missing > 0 && candidate->missing == candidate->absent_seen) {
        error_set(why, "no-shards", ENOENT, "%s names %u shards, none of which is there",
                  entry_at(settling, candidate->index_entry)->path, candidate->missing);
    } else if (candidate->beside != SCAN_NONE) {
        error_set(why, "single-and-shards", EEXIST,
                  "%s is a %s of its own beside shards that would be merged under its name",
                  entry_at(settling, candidate->beside)->path,
                  entry_at(settling, candidate->beside)->kind == SCAN_FILE ? "file" : "directory");
    } else if ((member = shared_member(settling, candidate)) != NULL) {
        error_set(why, "two-groups", EINVAL, "%s is a shard of two groups of files", member->path);
    } else if ((member = rival(settling, candidate)) != NULL) {
        error_set(why, "no-index", EEXIST,
                  "%s is what loaders find by its name, since no index names the shards of %s",
                  member->path, candidate->merged_name);
    } else if (is_no_split(candidate)) {
        error_set(why, "no-split", EINVAL, "%s and others like it do not say that they are splits",
                  entry_at(settling, candidate->members[0])->path);
    } else if (candidate->no_set || is_coming(candidate)) {
        *why = candidate->error;
    } else if ((header = unsupported(candidate)) != NULL &&
               (candidate->perhaps || !candidate->failed)) {
        *why = header->error;
    } else {
        *outcome = OUTCOME_COMPONENT;
        if (!candidate->passthrough)
            return decide_by_headers(settling, candidate, outcome, why);
    }
    return 0;
}

/* ---- what is shown as it is ---------------------------------------------------------------------
 */

static void note_as_is(const struct settling *settling, const struct candidate *candidate,
                       const struct unshard_error *why)
{
    struct discovery *discovery = settling->discovery;
    bool several = candidate->member_count + (candidate->index_entry != SCAN_NONE) > 1;
    note_add(&discovery->notes, &discovery->checkpoint->arena, "%s; %s shown as %s on disk.",
             why->message, several ? "all of them are" : "it is", several ? "they are" : "it is");
}

/* A component of one file that is shown under its own name. */
static int keep_single(struct settling *settling, const struct candidate *group, uint32_t member)
{
    struct arena *arena = &settling->discovery->checkpoint->arena;
    const struct scan_entry *entry = entry_at(settling, group->members[member]);
    struct candidate *single = calloc(1, sizeof *single);
    const char *end = strrchr(entry->name, '.');
    if (single == NULL)
        return -ENOMEM;
    settling->kept[settling->kept_count++] = single;
    *single = (struct candidate){
        .directory = entry->parent, /* an index may name files below its own */
        .variant = "",
        .base = arena_copy_string(arena, entry->name, (size_t)(end - entry->name)),
        .extension = group->extension,
        .merged_name = entry->name,
        .format = group->format,
        .passthrough = true,
        .as_files = group->as_files,
        .members = arena_alloc_array(arena, 1, sizeof *single->members),
        .member_count = 1,
        .index_entry = SCAN_NONE,
        .beside = SCAN_NONE,
        .headers = group->headers + member,
    };
    single->stem = single->base;
    if (single->base == NULL || single->members == NULL)
        return -ENOMEM;
    single->members[0] = group->members[member];
    return 0;
}

/* Whether a file of what is shown as it is on disk is a component all the same. Those of PyTorch
 * are where nothing else is made of them. */
static bool is_weights(const struct candidate *candidate, const struct header *header)
{
    if (candidate->as_files && candidate->format->shown_as != NULL)
        return !candidate->perhaps || header->result == 0;
    return candidate->format->shown_as == NULL && header->result != -ENOTSUP;
}

static int show_as_is(struct settling *settling, struct candidate *candidate)
{
    int result = 0;
    for (uint32_t i = 0; i < candidate->member_count && result == 0; i++) {
        struct scan_entry *entry = entry_at(settling, candidate->members[i]);
        /* What lies in another directory is a component where that is laid out. */
        bool weights = is_weights(candidate, &candidate->headers[i]) &&
                       scan_is_focus(&settling->discovery->scan, entry->parent);
        entry->claimed = weights;
        if (weights && !entry->whole)
            result = keep_single(settling, candidate, i);
        entry->whole = true;
    }
    candidate_free(candidate);
    return result;
}

/* ---------------------------------------------------------------------------------------------- */

/* ---- what is a component ------------------------------------------------------------------------
 */

/* An index gives its name up to the one that is shown instead; under another name it can still be
 * opened, as the shards can. With index=hide there is none. */
static void place_index(const struct settling *settling, const struct candidate *candidate)
{
    const struct unshard_view_options *options = &settling->discovery->checkpoint->options;
    struct scan_entry *index = entry_at(settling, candidate->index_entry);
    bool both = options->layout == UNSHARD_LAYOUT_BOTH;
    bool other_name =
        candidate->index_name != NULL && strcmp(index->name, candidate->index_name) != 0;
    if (index->kind != SCAN_FILE || (both && candidate->failed))
        return;
    index->hidden = options->index == UNSHARD_INDEX_HIDE || !other_name;
    index->unlisted = !index->hidden && !both;
}

/* Its file takes the places of others. Pickles give theirs up only when it stands
 * (components.c). */
static void take_places(const struct settling *settling, const struct candidate *candidate)
{
    bool both = settling->discovery->checkpoint->options.layout == UNSHARD_LAYOUT_BOTH;
    if (candidate->format->shown_as != NULL)
        return;
    for (uint32_t i = 0; i < candidate->member_count; i++)
        entry_at(settling, candidate->members[i])->unlisted = !both && !candidate->passthrough;
    for (uint32_t i = 0; i < candidate->replaced_count; i++) {
        struct scan_entry *entry = entry_at(settling, candidate->replaced[i]);
        entry->unlisted = entry->kind == SCAN_FILE && !both;
        entry->hidden = entry->kind != SCAN_FILE; /* it leads nowhere */
    }
    if (candidate->index_entry != SCAN_NONE)
        place_index(settling, candidate);
}

/* What is missing of its files, or wrong with them together, is no error of those that are there.
 */
static void note_faults(const struct settling *settling, struct candidate *candidate)
{
    struct arena *arena = &settling->discovery->checkpoint->arena;
    if (candidate->failed)
        note_add(&candidate->notes, arena, "%s.", candidate->error.message);
    for (uint32_t i = 0; i < candidate->absent_count; i++)
        if (strcmp(candidate->absent[i].error->message, candidate->error.message) != 0)
            note_add(&candidate->notes, arena, "%s.", candidate->absent[i].error->message);
    candidate->absent_count = 0;
}

static int settle(struct settling *settling, struct candidate *candidate)
{
    struct unshard_error why = {.offset = UNSHARD_NO_OFFSET};
    enum outcome outcome;
    candidate->as_files = settling->discovery->checkpoint->options.layout == UNSHARD_LAYOUT_SHARDS;
    int result = decide(settling, candidate, &outcome, &why);
    if (result != 0 || outcome == OUTCOME_COMPONENT) {
        if (candidate->as_files)
            note_faults(settling, candidate);
        else
            take_places(settling, candidate);
        settling->kept[settling->kept_count++] = candidate;
        return result;
    }
    note_as_is(settling, candidate, &why);
    return show_as_is(settling, candidate);
}

int outcomes_settle(struct discovery *discovery, struct unshard_error *error)
{
    size_t most = 1;
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        most +=
            discovery->candidates[i]->member_count > 1 ? discovery->candidates[i]->member_count : 1;
    struct settling settling = {.discovery = discovery,
                                .kept = calloc(most, sizeof(struct candidate *))};
    if (settling.kept == NULL)
        return error_no_memory(error);
    int result = 0;
    for (uint32_t i = 0; i < discovery->candidate_count; i++) {
        if (result == 0)
            result = settle(&settling, discovery->candidates[i]);
        else /* so that all are freed */
            settling.kept[settling.kept_count++] = discovery->candidates[i];
    }
    free(discovery->candidates);
    discovery->candidates = settling.kept;
    discovery->candidate_count = settling.kept_count;
    return result == 0 ? 0 : error_no_memory(error);
}
