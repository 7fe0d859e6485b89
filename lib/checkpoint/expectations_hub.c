/* SPDX-License-Identifier: MIT
 *
 * Three things of huggingface_hub, see its _local_folder.py, file_download.py and _tree_cache.py:
 *
 * - In its cache a file of a snapshot is a symlink to ../../blobs/ETAG. That the target is that
 *   blob is checked by device and inode, not by the words of the symlink.
 * - A download to a directory leaves .cache/huggingface/download/PATH.metadata.
 * - trees/COMMIT.json lists the files of a commit. It is believed for a file that is known to be at
 *   that commit: of a snapshot of that name, or with current metadata that names the commit. */
#include "checkpoint/expectations.h"

#include "base/error.h"
#include "base/parallel.h"
#include "base/string_map.h"
#include "checkpoint/path_policy.h"
#include "digest/hub_metadata.h"
#include "digest/hub_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOWNLOAD ".cache/huggingface/download"
#define TREES ".cache/huggingface/trees"
#define BATCH 512U
#define NO_COMMIT UINT32_MAX

/* What the hub knows of one file. */
struct hub_fact {
    uint32_t entry;    /* scan entry of the file */
    uint32_t metadata; /* scan entry of its .metadata, or SCAN_NONE */
    struct digest blob;
    struct hub_metadata read;
    int result; /* of reading the metadata */
    struct unshard_error error;
};

struct hub {
    struct gathering *gathering;
    int blobs_fd; /* the cache's directory of blobs, or -1 */
    struct hub_fact *facts;
    uint32_t fact_count;
    uint32_t *commit_of; /* of each source file: the commit it is at, by its metadata */
    struct string_map commits;
    const char **commit_names;
    uint32_t commit_count;
    uint32_t stale_count;
    const char *stale; /* path of the first one */
};

static struct unshard_checkpoint *checkpoint_of(const struct hub *hub)
{
    return hub->gathering->discovery->checkpoint;
}

static const struct scan_entry *entry_of(const struct hub *hub, uint32_t entry)
{
    return &hub->gathering->discovery->scan.entries[entry];
}

/* ---- one file ----------------------------------------------------------------------------------
 */

/* The entry is a symlink to the blob whose name its text ends with. */
static void look_at_blob(const struct hub *hub, struct hub_fact *fact)
{
    const struct scan_entry *entry = entry_of(hub, fact->entry);
    struct stat status;
    struct digest digest;
    if (entry->target == NULL || hub->blobs_fd < 0)
        return;
    const char *slash = strrchr(entry->target, '/');
    const char *name = slash == NULL ? entry->target : slash + 1;
    if (!hub_etag_digest(name, strlen(name), &digest) ||
        fstatat(hub->blobs_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (status.st_dev == entry->device && status.st_ino == entry->inode)
        fact->blob = digest;
}

static void look_at_metadata(const struct hub *hub, struct hub_fact *fact)
{
    char *text = NULL;
    size_t length;
    char path[256];
    const char *raw = entry_of(hub, fact->metadata)->path;
    error_quote(path, sizeof path, raw, strlen(raw));
    fact->result = discovery_read_file(hub->gathering->discovery, fact->metadata,
                                       HUB_METADATA_MAX_BYTES, &text, &length);
    if (fact->result == 0)
        fact->result = hub_metadata_parse(text, length, path, &fact->read, &fact->error);
    else
        error_set(&fact->error, "unreadable", -fact->result,
                  "%s: the download metadata cannot be read: %s", path,
                  strerrordesc_np(-fact->result));
    free(text);
}

static void find_fact(void *context, uint32_t number)
{
    const struct hub *hub = context;
    struct hub_fact *fact = &hub->facts[number];
    look_at_blob(hub, fact);
    if (fact->metadata != SCAN_NONE)
        look_at_metadata(hub, fact);
}

static int claim_digest(struct hub *hub, uint32_t entry, enum claim_rank rank,
                        const struct digest *digest, const char *origin)
{
    struct claim claim = {.file = entry_of(hub, entry)->file, .rank = rank, .digest = *digest};
    claim.origin = origin;
    if (digest->algorithm == DIGEST_NONE)
        return 0;
    return origin == NULL ? -ENOMEM : claim_add(&hub->gathering->claims, &claim);
}

static int remember_commit(struct hub *hub, uint32_t file, const char *commit)
{
    struct arena *arena = &checkpoint_of(hub)->arena;
    if (commit[0] == '\0')
        return 0;
    const char *copy = arena_copy_string(arena, commit, HUB_COMMIT_DIGITS);
    if (copy == NULL)
        return -ENOMEM;
    int added = string_map_add(&hub->commits, copy, HUB_COMMIT_DIGITS, hub->commit_count,
                               &hub->commit_of[file]);
    if (added == 1)
        hub->commit_names[hub->commit_count++] = copy;
    return added < 0 ? added : 0;
}

static int use_metadata(struct hub *hub, const struct hub_fact *fact)
{
    const struct scan_entry *entry = entry_of(hub, fact->entry);
    if (fact->result == -ENOMEM)
        return -ENOMEM;
    if (fact->result != 0) {
        problem_add(&hub->gathering->problems, &fact->error);
        return 0;
    }
    if (!hub_metadata_is_current(&fact->read, entry->mtime_ns)) {
        if (hub->stale_count++ == 0)
            hub->stale = entry->path;
        return 0;
    }
    if (remember_commit(hub, entry->file, fact->read.commit) != 0)
        return -ENOMEM;
    const char *origin = gathering_origin(hub->gathering, entry_of(hub, fact->metadata)->path, 0);
    return claim_digest(hub, fact->entry, CLAIM_METADATA, &fact->read.digest, origin);
}

static int use_facts(struct hub *hub)
{
    int result = 0;
    parallel_run(hub->fact_count, PARALLEL_IO_THREADS, find_fact, hub);
    for (uint32_t i = 0; i < hub->fact_count && result == 0; i++) {
        const struct hub_fact *fact = &hub->facts[i];
        result = claim_digest(hub, fact->entry, CLAIM_BLOB, &fact->blob, "hub cache blob name");
        if (result == 0 && fact->metadata != SCAN_NONE)
            result = use_metadata(hub, fact);
    }
    hub->fact_count = 0;
    return result;
}

/* ---- all files ---------------------------------------------------------------------------------
 */

static uint32_t metadata_of(const struct hub *hub, uint32_t download, const char *path)
{
    char name[PATH_MAX];
    if (download == SCAN_NONE ||
        snprintf(name, sizeof name, "%s.metadata", path) >= (int)sizeof name)
        return SCAN_NONE;
    const struct scan *scan = &hub->gathering->discovery->scan;
    uint32_t entry = scan_find(scan, download, name);
    return entry == SCAN_NONE || scan->entries[entry].kind != SCAN_FILE ? SCAN_NONE : entry;
}

static int look_at_files(struct hub *hub)
{
    const struct scan *scan = &hub->gathering->discovery->scan;
    uint32_t download = scan_find(scan, 0, DOWNLOAD);
    int result = 0;
    if (download == SCAN_NONE && hub->blobs_fd < 0)
        return 0;
    for (uint32_t i = 0; i < scan->count && result == 0; i++) {
        const struct scan_entry *entry = &scan->entries[i];
        if (entry->kind != SCAN_FILE || path_policy_is_private(entry->path))
            continue;
        uint32_t metadata = metadata_of(hub, download, entry->path);
        if (metadata == SCAN_NONE && (entry->target == NULL || hub->blobs_fd < 0))
            continue;
        hub->facts[hub->fact_count++] = (struct hub_fact){.entry = i, .metadata = metadata};
        if (hub->fact_count == BATCH)
            result = use_facts(hub);
    }
    if (result == 0)
        result = use_facts(hub);
    if (result == 0 && hub->stale_count > 0)
        note_add(&hub->gathering->discovery->notes, &checkpoint_of(hub)->arena,
                 "%s was changed after its download: what the hub says of it is not used (%u such "
                 "files).",
                 gathering_origin(hub->gathering, hub->stale, 0), hub->stale_count);
    return result;
}

/* ---- tree listings -----------------------------------------------------------------------------
 */

/* Which files a listing is believed for. */
struct tree_scope {
    const char *prefix; /* of the source within the repository: "" or "sub/directory/" */
    uint32_t commit;    /* that files must be at by their metadata; NO_COMMIT: all are */
};

static int claim_tree(struct hub *hub, const struct digest_list *list, struct tree_scope scope,
                      const char *origin)
{
    size_t prefix = strlen(scope.prefix);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct listed_digest *item = &list->items[i];
        if (strncmp(item->name, scope.prefix, prefix) != 0)
            continue;
        struct claim claim = {.rank = CLAIM_TREE,
                              .digest = item->digest,
                              .origin = origin,
                              .has_size = item->has_size,
                              .size = item->size};
        claim.file = gathering_find_file(hub->gathering, 0, item->name + prefix);
        if (claim.file == SCAN_NONE ||
            (scope.commit != NO_COMMIT && hub->commit_of[claim.file] != scope.commit))
            continue;
        if (claim_add(&hub->gathering->claims, &claim) != 0)
            return -ENOMEM;
    }
    return 0;
}

static int use_tree(struct hub *hub, const char *text, size_t length, const char *path,
                    struct tree_scope scope)
{
    struct discovery *discovery = hub->gathering->discovery;
    struct digest_list list = {0};
    struct arena arena = {0};
    struct unshard_error error = {0};
    int result = hub_tree_parse(text, length, path, &arena, &list, &error);
    if (result == 0) {
        result = claim_tree(hub, &list, scope, path);
    } else if (result == -ENOTSUP) {
        note_add(&discovery->notes, &discovery->checkpoint->arena, "%s; it is ignored.",
                 error.message);
        result = 0;
    } else if (result != -ENOMEM) {
        problem_add(&hub->gathering->problems, &error);
        result = 0;
    }
    digest_list_free(&list);
    arena_free(&arena);
    return result;
}

static int use_tree_entry(struct hub *hub, uint32_t entry, struct tree_scope scope)
{
    const char *path = gathering_origin(hub->gathering, entry_of(hub, entry)->path, 0);
    char *text = NULL;
    size_t length;
    if (path == NULL)
        return -ENOMEM;
    int result = discovery_read_file(hub->gathering->discovery, entry, DIGEST_LIST_MAX_BYTES, &text,
                                     &length);
    if (result == 0) {
        result = use_tree(hub, text, length, path, scope);
    } else if (result != -ENOMEM) {
        struct unshard_error error;
        error_set(&error, "unreadable", -result, "%s: the listing cannot be read: %s", path,
                  strerrordesc_np(-result));
        problem_add(&hub->gathering->problems, &error);
        result = 0;
    }
    free(text);
    return result;
}

static int look_at_local_trees(struct hub *hub)
{
    const struct scan *scan = &hub->gathering->discovery->scan;
    uint32_t trees = scan_find(scan, 0, TREES);
    int result = 0;
    for (uint32_t i = 0; trees != SCAN_NONE && i < hub->commit_count && result == 0; i++) {
        char name[HUB_COMMIT_DIGITS + 8];
        snprintf(name, sizeof name, "%s.json", hub->commit_names[i]);
        uint32_t entry = scan_find(scan, trees, name);
        if (entry != SCAN_NONE && scan->entries[entry].kind == SCAN_FILE)
            result = use_tree_entry(hub, entry, (struct tree_scope){.prefix = "", .commit = i});
    }
    return result;
}

/* "COMMIT" or "COMMIT/sub/directory" behind ".../snapshots/" of the source; NULL without one. */
static const char *snapshot_of(const struct unshard_checkpoint *checkpoint)
{
    if (checkpoint->blob_root == NULL)
        return NULL;
    const char *commit = checkpoint->source + strlen(checkpoint->blob_root) + strlen("/snapshots/");
    return hub_is_commit(commit, strcspn(commit, "/")) ? commit : NULL;
}

/* The listing lies outside the source, in the same cache repository, so it is opened by itself: a
 * regular file there and no symlink. */
static int read_cache_tree(struct hub *hub, const char *path, const char *shown,
                           struct tree_scope scope)
{
    struct unshard_error error;
    char *text = NULL;
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    int result = fd < 0 ? -errno : discovery_read_fd(fd, DIGEST_LIST_MAX_BYTES, &text, &length);
    if (fd >= 0)
        close(fd);
    if (result == 0) {
        result = use_tree(hub, text, length, shown, scope);
    } else if (result != -ENOMEM) {
        error_set(&error, "unreadable", -result, "%s: the listing cannot be read: %s", shown,
                  strerrordesc_np(-result));
        problem_add(&hub->gathering->problems, &error);
        result = 0;
    }
    free(text);
    return result;
}

static int look_at_cache_tree(struct hub *hub)
{
    struct unshard_checkpoint *checkpoint = checkpoint_of(hub);
    const char *commit = snapshot_of(checkpoint);
    char path[PATH_MAX], prefix[PATH_MAX] = "";
    if (commit == NULL)
        return 0;
    int length = snprintf(path, sizeof path, "%s/trees/%.40s.json", checkpoint->blob_root, commit);
    if (commit[HUB_COMMIT_DIGITS] == '/')
        snprintf(prefix, sizeof prefix, "%s/", commit + HUB_COMMIT_DIGITS + 1);
    if (length >= (int)sizeof path)
        return 0;
    const char *shown = path + strlen(checkpoint->blob_root) + 1;
    shown = arena_copy_string(&checkpoint->arena, shown, strlen(shown));
    if (shown == NULL)
        return -ENOMEM;
    return read_cache_tree(hub, path, shown,
                           (struct tree_scope){.prefix = prefix, .commit = NO_COMMIT});
}

static int open_blobs(const struct unshard_checkpoint *checkpoint)
{
    char path[PATH_MAX];
    if (checkpoint->blob_root == NULL ||
        snprintf(path, sizeof path, "%s/blobs", checkpoint->blob_root) >= (int)sizeof path)
        return -1;
    return open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int expectations_from_hub(struct gathering *gathering)
{
    const struct unshard_checkpoint *checkpoint = gathering->discovery->checkpoint;
    struct hub hub = {.gathering = gathering, .blobs_fd = open_blobs(checkpoint)};
    size_t files = (size_t)checkpoint->file_count + 1;
    int result = -ENOMEM;
    hub.facts = calloc(BATCH, sizeof *hub.facts);
    hub.commit_of = calloc(files, sizeof *hub.commit_of);
    hub.commit_names = calloc(files, sizeof *hub.commit_names);
    if (hub.facts != NULL && hub.commit_of != NULL && hub.commit_names != NULL) {
        memset(hub.commit_of, 0xff, files * sizeof *hub.commit_of);
        result = look_at_files(&hub);
        if (result == 0)
            result = look_at_local_trees(&hub);
        if (result == 0)
            result = look_at_cache_tree(&hub);
    }
    if (hub.blobs_fd >= 0)
        close(hub.blobs_fd);
    free(hub.facts);
    free(hub.commit_of);
    free(hub.commit_names);
    string_map_free(&hub.commits);
    return result;
}
