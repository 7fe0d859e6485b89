/* SPDX-License-Identifier: MIT
 *
 * A list says what it says of the files beside it and below: names are relative to its directory.
 * Many small lists (NAME.sha256 for every NAME) are read several at once, a batch at a time. */
#include "tree/expectations.h"

#include "base/error.h"
#include "base/parallel.h"
#include "digest/checksum_list.h"
#include "digest/checksums_json.h"
#include "digest/list_name.h"
#include "digest/manifest.h"
#include "digest/xxhsum_list.h"
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
    char *text; /* malloc'd */
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

/* Whether the file called `name` below the directory of the list is one of those that are laid out:
 * of what lies elsewhere nothing is known, and nothing need be. */
static bool is_near(const struct gathering *gathering, uint32_t list_entry, const char *name)
{
    const struct scan *scan = &gathering->discovery->scan;
    uint32_t directory = entry_of(gathering, list_entry)->parent;
    if (scan->focus == SCAN_NONE)
        return true;
    if (directory < scan->focus) {
        size_t skip = directory == 0 ? 0 : strlen(scan->entries[directory].path) + 1;
        const char *way = scan->entries[scan->focus].path + skip;
        size_t length = strlen(way);
        if (strncmp(name, way, length) != 0 || name[length] != '/')
            return false;
        name += length + 1;
        directory = scan->focus;
    }
    const char *slash = strchr(name, '/');
    if (slash != NULL)
        directory = scan_listed_child(scan, directory, name, (size_t)(slash - name));
    return directory != SCAN_NONE && scan_is_near(scan, directory);
}

/* Adds a claim about the file called `name` below the directory of the list. */
static int claim_name(struct gathering *gathering, uint32_t list_entry, const char *name,
                      struct claim *claim)
{
    uint32_t directory = entry_of(gathering, list_entry)->parent;
    if (!is_near(gathering, list_entry, name))
        return 0;
    claim->file = gathering_find_file(gathering, directory, name);
    if (claim->file == SCAN_NONE)
        return add_missing(gathering, entry_of(gathering, directory)->path, name, claim->origin);
    return claim_add(&gathering->claims, claim);
}

/* A file of this name is there, or it is one of those that are listed as missing. */
static bool is_of_use(const struct gathering *gathering, uint32_t list_entry, const char *name)
{
    if (!is_near(gathering, list_entry, name))
        return false;
    return gathering->missing.count < MOST_MISSING ||
           gathering_find_file(gathering, entry_of(gathering, list_entry)->parent, name) !=
               SCAN_NONE;
}

static int claim_items(struct gathering *gathering, uint32_t entry, const struct digest_list *list)
{
    const char *path = entry_of(gathering, entry)->path;
    const char *shared = NULL;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct listed_digest *item = &list->items[i];
        struct claim claim = {.rank = CLAIM_LIST, .digest = item->digest};
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

/* What of a list could not be used is told, and never silently left out. */
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

static int parse_form(const struct found_list *found, const char *path, const char *subject,
                      struct arena *arena, struct digest_list *out, struct unshard_error *error)
{
    switch (found->name.kind) {
    case DIGEST_LIST_XXHSUM:
        return xxhsum_list_parse(found->text, found->length, path, arena, out, error);
    case DIGEST_LIST_JSON:
        return checksums_json_parse(found->text, found->length, path, arena, out, error);
    default:
        return checksum_list_parse(found->text, found->length, path, found->name.algorithm, subject,
                                   arena, out, error);
    }
}

static int use_list(struct gathering *gathering, const struct found_list *found)
{
    struct discovery *discovery = gathering->discovery;
    const struct scan_entry *entry = entry_of(gathering, found->entry);
    struct digest_list list = {0};
    struct arena arena = {0};
    struct unshard_error error = {0};
    const char *path = gathering_origin(gathering, entry->path, 0), *subject = NULL;
    int result = path == NULL ? -ENOMEM : 0;
    if (result == 0 && found->name.subject_length > 0 &&
        (subject = arena_copy_string(&arena, entry->name, found->name.subject_length)) == NULL)
        result = -ENOMEM;
    if (result == 0)
        result = parse_form(found, path, subject, &arena, &list, &error);
    if (result == 0) {
        report_list(gathering, &list);
        result = claim_items(gathering, found->entry, &list);
    } else if (result == -ENOTSUP) {
        note_add(&discovery->notes, &discovery->checkpoint->arena, "%s; it is ignored.",
                 error.message);
        result = 0;
    } else if (result != -ENOMEM) {
        problem_add(&gathering->problems, &error);
        result = 0;
    }
    digest_list_free(&list);
    arena_free(&arena);
    return result;
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

static int use_manifest(struct gathering *gathering, const struct found_list *found)
{
    struct unshard_checkpoint *checkpoint = gathering->discovery->checkpoint;
    const char *origin = gathering_origin(gathering, entry_of(gathering, found->entry)->path, 0);
    struct manifest manifest = {0};
    struct unshard_error error = {0};
    if (origin == NULL)
        return -ENOMEM;
    int result =
        manifest_parse(found->text, found->length, origin, &checkpoint->arena, &manifest, &error);
    if (result != 0 && result != -ENOMEM) {
        problem_add(&gathering->problems, &error);
        return 0;
    }
    for (uint32_t i = 0; i < manifest.file_count && result == 0; i++)
        result = claim_manifest_file(gathering, found->entry, &manifest, i, origin);
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
    if (entry_of(batch->gathering, found->entry)->size <= SMALL_LIST)
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
    problem_add(&gathering->problems, &error);
    return true;
}

static int use_found(struct gathering *gathering, struct found_list *found)
{
    const char *path = entry_of(gathering, found->entry)->path;
    char reason[64];
    struct unshard_error error;
    if (is_too_much(gathering, found))
        return 0;
    if (found->text == NULL && found->result == 0)
        found->result = discovery_read_file(gathering->discovery, found->entry, limit_of(found),
                                            &found->text, &found->length);
    if (found->result == -ENOMEM)
        return -ENOMEM;
    if (found->result != 0) {
        error_set(&error, "unreadable", -found->result, "%s: its digests cannot be read: %s", path,
                  discovery_why_unread(found->result, limit_of(found), reason));
        problem_add(&gathering->problems, &error);
        return 0;
    }
    int result = found->name.kind == DIGEST_LIST_MANIFEST ? use_manifest(gathering, found)
                                                          : use_list(gathering, found);
    free(found->text);
    found->text = NULL;
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
        batch.lists[batch.count++] = (struct found_list){.entry = i, .name = name};
        if (batch.count == BATCH)
            result = use_batch(&batch);
    }
    if (result == 0)
        result = use_batch(&batch);
    if (result == 0)
        note_missing(gathering);
    return result;
}
