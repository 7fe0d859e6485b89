/* SPDX-License-Identifier: MIT
 *
 * A list says what it says of the files beside it and below: names are relative to its directory.
 * Many small lists (NAME.sha256 for every NAME) are read several at once, a batch at a time. */
#include "tree/expectations.h"

#include "base/error.h"
#include "base/parallel.h"
#include "digest/list_name.h"
#include "tree/inherited.h"
#include "tree/parsed_list.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64U
#define SMALL_LIST (UINT64_C(64) << 10)
#define MOST_MISSING 1000U
/* Of all lists and manifests together: there may be one in each directory. */
#define MOST_LIST_BYTES MANIFEST_MAX_BYTES
#define MOST_CLAIMS 1000000U

/* A list found by its name. */
struct found_list {
    uint32_t entry;
    struct digest_list_name name;
    struct parsed_list *parsed; /* held; NULL: it is to be read */
    char *text;                 /* malloc'd */
    size_t length;
    int result; /* of reading it */
};

struct batch {
    struct gathering *gathering;
    struct found_list lists[BATCH];
    uint32_t count;
};

static const struct scan_entry *entry_of(const struct gathering *gathering, uint32_t entry)
{
    return &gathering->discovery->scan.entries[entry];
}

/* ---- what the lists say ------------------------------------------------------------------------
 */

static int add_missing(struct gathering *gathering, const char *directory, const char *name,
                       const char *origin)
{
    struct arena *arena = &gathering->discovery->checkpoint->arena;
    struct missing_list *missing = &gathering->missing;
    if (missing->count == MOST_MISSING)
        return 0;
    if (missing->count == missing->capacity) {
        uint32_t capacity = missing->capacity == 0 ? 16 : missing->capacity * 2;
        struct missing_file *grown = reallocarray(missing->items, capacity, sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        missing->items = grown;
        missing->capacity = capacity;
    }
    size_t capacity = strlen(directory) + strlen(name) + 2;
    char *path = arena_alloc(arena, capacity);
    if (path == NULL)
        return -ENOMEM;
    snprintf(path, capacity, "%s%s%s", directory, directory[0] != '\0' ? "/" : "", name);
    missing->items[missing->count++] = (struct missing_file){.path = path, .origin = origin};
    return 0;
}

/* Adds a claim about the file called `name` below the directory of the list. */
static int claim_name(struct gathering *gathering, uint32_t list_entry, const char *name,
                      struct claim *claim)
{
    uint32_t directory = entry_of(gathering, list_entry)->parent;
    enum gathering_place place = gathering_place_of(gathering, directory, name);
    if (place == PLACE_ELSEWHERE)
        return 0;
    claim->file = gathering_find_file(gathering, directory, name);
    if (claim->file == SCAN_NONE && place == PLACE_NEAR)
        return 0;
    if (claim->file == SCAN_NONE)
        return add_missing(gathering, entry_of(gathering, directory)->path, name, claim->origin);
    return claim_add(&gathering->claims, claim);
}

/* A file of this name is there, or it is one of those that are listed as missing. */
static bool is_of_use(const struct gathering *gathering, uint32_t list_entry, const char *name)
{
    uint32_t directory = entry_of(gathering, list_entry)->parent;
    return gathering_place_of(gathering, directory, name) != PLACE_ELSEWHERE &&
           (gathering->missing.count < MOST_MISSING ||
            gathering_find_file(gathering, directory, name) != SCAN_NONE);
}

/* Whether it is of use to those below. */
static void note_below(const struct gathering *gathering, uint32_t list_entry, const char *name)
{
    struct scan_entry *list = &gathering->discovery->scan.entries[list_entry];
    list->reaches = list->reaches || gathering_is_below(gathering, list->parent, name);
}

static int claim_items(struct gathering *gathering, uint32_t entry, const struct digest_list *list)
{
    const char *path = entry_of(gathering, entry)->path;
    const char *shared = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct listed_digest *item = &list->items[i];
        struct claim claim = {.rank = CLAIM_LIST, .digest = item->digest};
        note_below(gathering, entry, item->name);
        if (!is_of_use(gathering, entry, item->name))
            continue;
        if (item->line == 0 && shared == NULL)
            shared = gathering_origin(gathering, path, 0);
        claim.origin = item->line == 0 ? shared : gathering_origin(gathering, path, item->line);
        if (claim.origin == NULL || claim_name(gathering, entry, item->name, &claim) != 0)
            return -ENOMEM;
    }
    return 0;
}

/* What of a list could not be used is told, and never silently left out: where the list is. */
static bool is_told_of(const struct gathering *gathering, uint32_t list_entry)
{
    return scan_is_focus(&gathering->discovery->scan, entry_of(gathering, list_entry)->parent);
}

static void tell_problem(struct gathering *gathering, uint32_t list_entry,
                         const struct unshard_error *error)
{
    if (is_told_of(gathering, list_entry))
        problem_add(&gathering->problems, error);
}

static void report_list(struct gathering *gathering, const struct digest_list *list)
{
    struct discovery *discovery = gathering->discovery;
    struct arena *arena = &discovery->checkpoint->arena;
    if (list->malformed_count > 1) {
        struct unshard_error error;
        error_set(&error, list->malformed.code, 0, "%.400s (and %u more entries)",
                  list->malformed.message, list->malformed_count - 1);
        problem_add(&gathering->problems, &error);
    } else if (list->malformed_count == 1) {
        problem_add(&gathering->problems, &list->malformed);
    }
    if (list->unsafe_count > 0)
        note_add(&discovery->notes, arena, "%s; it is ignored (%u such names).", list->unsafe,
                 list->unsafe_count);
    if (list->unsupported_count > 0)
        note_add(&discovery->notes, arena, "%s; it is ignored (%u such lines).", list->unsupported,
                 list->unsupported_count);
}

/* ---- manifests ---------------------------------------------------------------------------------
 */

static int claim_manifest_file(struct gathering *gathering, uint32_t entry,
                               const struct manifest *manifest, uint32_t number, const char *origin)
{
    const struct manifest_file *file = &manifest->files[number];
    struct expected_chunks *chunks =
        arena_alloc(&gathering->discovery->checkpoint->arena, sizeof *chunks);
    if (chunks == NULL)
        return -ENOMEM;
    *chunks = (struct expected_chunks){.chunk_bytes = manifest->chunk_bytes,
                                       .count = file->chunk_count,
                                       .algorithm = manifest->chunk_algorithm,
                                       .digests = file->chunks,
                                       .origin = origin};
    struct claim claim = {.rank = CLAIM_MANIFEST,
                          .digest = file->sha256,
                          .chunks = chunks,
                          .origin = origin,
                          .has_size = true,
                          .size = file->size};
    return claim_name(gathering, entry, file->path, &claim);
}

static int claim_manifest(struct gathering *gathering, uint32_t entry,
                          const struct manifest *manifest)
{
    const char *origin = gathering_origin(gathering, entry_of(gathering, entry)->path, 0);
    int result = origin == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; i < manifest->file_count && result == 0; i++) {
        const char *name = manifest->files[i].path;
        note_below(gathering, entry, name);
        if (gathering_place_of(gathering, entry_of(gathering, entry)->parent, name) !=
            PLACE_ELSEWHERE)
            result = claim_manifest_file(gathering, entry, manifest, i, origin);
    }
    return result;
}

/* ---- finding and reading them ------------------------------------------------------------------
 */

static uint64_t limit_of(const struct found_list *found)
{
    return found->name.kind == DIGEST_LIST_MANIFEST ? MANIFEST_MAX_BYTES : DIGEST_LIST_MAX_BYTES;
}

static void read_small(void *context, uint32_t number)
{
    struct batch *batch = context;
    struct found_list *found = &batch->lists[number];
    if (found->parsed == NULL && entry_of(batch->gathering, found->entry)->size <= SMALL_LIST)
        found->result = discovery_read_file(batch->gathering->discovery, found->entry,
                                            limit_of(found), &found->text, &found->length);
}

/* One list has a bound, and so have all together. What is not read is told. */
static bool is_too_much(struct gathering *gathering, const struct found_list *found)
{
    const struct scan_entry *entry = entry_of(gathering, found->entry);
    struct unshard_error error;
    gathering->list_bytes += entry->size;
    if (gathering->list_bytes <= MOST_LIST_BYTES && gathering->claims.count <= MOST_CLAIMS)
        return false;
    gathering->list_bytes -= entry->size;
    error_set(&error, "too-large", EFBIG,
              "%s: is not read: all lists of digests together would have more than %llu bytes, or "
              "have more than %u digests already",
              entry->path, (unsigned long long)MOST_LIST_BYTES, MOST_CLAIMS);
    tell_problem(gathering, found->entry, &error);
    return true;
}

static int use_parsed(struct gathering *gathering, uint32_t entry, const struct parsed_list *parsed)
{
    struct discovery *discovery = gathering->discovery;
    if (parsed->result == -ENOTSUP && !parsed->is_manifest) {
        if (is_told_of(gathering, entry))
            note_add(&discovery->notes, &discovery->checkpoint->arena, "%s; it is ignored.",
                     parsed->error.message);
        return 0;
    }
    if (parsed->result != 0) {
        tell_problem(gathering, entry, &parsed->error);
        return 0;
    }
    if (parsed->is_manifest)
        return claim_manifest(gathering, entry, &parsed->manifest);
    if (is_told_of(gathering, entry))
        report_list(gathering, &parsed->list);
    return claim_items(gathering, entry, &parsed->list);
}

/* Digests of chunks stay where they were parsed. Other lists are worth it for those below. */
static bool is_kept(const struct gathering *gathering, uint32_t entry,
                    const struct parsed_list *parsed)
{
    const struct scan_entry *list = entry_of(gathering, entry);
    return parsed->result == 0 &&
           (parsed->is_manifest || (list->reaches && list->size > SMALL_LIST));
}

static int parse_found(struct gathering *gathering, struct found_list *found)
{
    const struct scan_entry *entry = entry_of(gathering, found->entry);
    const char *origin = gathering_origin(gathering, entry->path, 0);
    if (origin != NULL)
        found->parsed = parsed_list_make(entry, found->name, origin, found->text, found->length);
    return found->parsed == NULL ? -ENOMEM : 0;
}

/* Those below may be luckier. */
static void not_read(struct gathering *gathering, const struct found_list *found)
{
    char reason[64];
    struct unshard_error error;
    error_set(&error, "unreadable", -found->result, "%s: its digests cannot be read: %s",
              entry_of(gathering, found->entry)->path,
              discovery_why_unread(found->result, limit_of(found), reason));
    tell_problem(gathering, found->entry, &error);
    gathering->discovery->scan.entries[found->entry].reaches = true;
}

static int use_found(struct gathering *gathering, struct found_list *found)
{
    if (is_too_much(gathering, found))
        return 0;
    if (found->parsed == NULL && found->text == NULL && found->result == 0)
        found->result = discovery_read_file(gathering->discovery, found->entry, limit_of(found),
                                            &found->text, &found->length);
    if (found->result == -ENOMEM)
        return -ENOMEM;
    if (found->result != 0) {
        not_read(gathering, found);
        return 0;
    }
    int result = found->parsed == NULL ? parse_found(gathering, found) : 0;
    if (result == 0)
        result = use_parsed(gathering, found->entry, found->parsed);
    if (result == 0 && is_kept(gathering, found->entry, found->parsed))
        result = parsed_list_keep(found->parsed, &gathering->discovery->checkpoint->inherited);
    return result;
}

static int use_batch(struct batch *batch)
{
    int result = 0;
    parallel_run(batch->count, read_small, batch);
    for (uint32_t i = 0; i < batch->count; i++) {
        if (result == 0)
            result = use_found(batch->gathering, &batch->lists[i]);
        free(batch->lists[i].text);
        parsed_list_give_back(batch->lists[i].parsed);
    }
    batch->count = 0;
    return result;
}

static void note_missing(const struct gathering *gathering)
{
    const struct missing_list *missing = &gathering->missing;
    struct discovery *discovery = gathering->discovery;
    char quoted[256];
    if (missing->count == 0)
        return;
    const char *path = missing->items[0].path;
    note_add(&discovery->notes, &discovery->checkpoint->arena,
             "%s names %s, which is not there (%u%s such files).", missing->items[0].origin,
             error_quote(quoted, sizeof quoted, path, strlen(path)), missing->count,
             missing->count == MOST_MISSING ? " or more" : "");
}

int expectations_from_lists(struct gathering *gathering)
{
    const struct scan *scan = &gathering->discovery->scan;
    bool ignore_manifest = gathering->discovery->checkpoint->options.ignore_manifest;
    struct batch batch = {.gathering = gathering};
    int result = 0;
    for (uint32_t i = 0; i < scan->count && result == 0; i++) {
        if (scan->entries[i].kind != SCAN_FILE || !scan_is_near(scan, scan->entries[i].parent) ||
            path_policy_is_private(scan->entries[i].path))
            continue;
        struct digest_list_name name = digest_list_name(scan->entries[i].name);
        if (name.kind == DIGEST_LIST_NOT_ONE ||
            (name.kind == DIGEST_LIST_MANIFEST && ignore_manifest))
            continue;
        batch.lists[batch.count++] = (struct found_list){
            .entry = i,
            .name = name,
            .parsed = parsed_list_find(inherited_left(gathering->discovery), &scan->entries[i])};
        if (batch.count == BATCH)
            result = use_batch(&batch);
    }
    if (result == 0)
        result = use_batch(&batch);
    if (result == 0)
        note_missing(gathering);
    return result;
}
