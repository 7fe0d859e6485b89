/* SPDX-License-Identifier: MIT
 *
 * Three things of huggingface_hub (formats/README.md 4.1 to 4.3); each of them counts wherever it
 * lies below the source:
 *
 * - In its cache a file of a snapshot is a symlink to ../../blobs/ETAG, and that is the content, or
 *   a symlink to it. The name in blobs/ is the digest. That a symlink leads to what has that name
 * is checked by device and inode, not by its words. Other names of the same file share the digest.
 * - A download to a directory leaves .cache/huggingface/download/PATH.metadata there.
 * - trees/COMMIT.json lists the files of a commit. It is believed for a file that is known to be at
 *   that commit: of a snapshot of that name, or with current metadata that names the commit. */
#include "tree/expectations.h"

#include "base/error.h"
#include "base/parallel.h"
#include "base/string_map.h"
#include "digest/hub_metadata.h"
#include "digest/hub_tree.h"
#include "tree/path_policy.h"

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
#define JSON_SUFFIX ".json"

/* What the hub knows of one file. */
struct hub_fact {
    uint32_t entry;    /* scan entry of the file */
    uint32_t metadata; /* scan entry of its .metadata, or SCAN_NONE */
    bool is_blob;      /* lies in a directory of blobs */
    struct digest blob;
    struct hub_metadata read;
    int result; /* of reading the metadata */
    struct unshard_error error;
};

struct hub {
    struct gathering *gathering;
    uint32_t *download_to; /* of each directory: it, or the next above it, that was downloaded to */
    uint32_t known;        /* ... before this one, which were known at the beginning */
    struct hub_fact *facts;
    uint32_t fact_count;
    uint32_t *commit_of; /* of each source file: the commit it is at, by its metadata */
    struct string_map commits;
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

/* "DIRECTORY/blobs/ETAG": where the last two names begin; NULL for other texts. */
static const char *blob_in(const char *target)
{
    static const char blobs[] = "blobs/";
    const char *slash = strrchr(target, '/');
    if (slash == NULL || slash - target + 1 < (ptrdiff_t)sizeof blobs - 1)
        return NULL;
    const char *start = slash + 1 - (sizeof blobs - 1);
    bool whole = start == target || start[-1] == '/';
    return whole && memcmp(start, blobs, sizeof blobs - 1) == 0 ? start : NULL;
}

/* The directory of which a symlink at `entry` says `length` bytes, as O_PATH; or a negative errno.
 */
static int open_said(const struct hub *hub, const struct scan_entry *entry, size_t length)
{
    char path[PATH_MAX];
    const char *parent = entry_of(hub, entry->parent)->path;
    int written =
        entry->target[0] == '/'
            ? snprintf(path, sizeof path, "%.*s", (int)length, entry->target)
            : snprintf(path, sizeof path, "./%s/%.*s", parent, (int)length, entry->target);
    if (written >= (int)sizeof path)
        return -ENAMETOOLONG;
    return openat(checkpoint_of(hub)->source_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static bool is_repository(int fd)
{
    char path[PATH_MAX];
    if (path_policy_path_of(fd, path) != 0)
        return false;
    const char *name = strrchr(path, '/') + 1;
    return path_policy_is_repository(name, strlen(name));
}

/* A symlink to a file of a snapshot, or by another way: where all of them end may be a blob. */
static void look_at_end(const struct hub *hub, struct hub_fact *fact)
{
    char path[PATH_MAX];
    struct stat status;
    int fd = path_policy_resolve(checkpoint_of(hub), entry_of(hub, fact->entry)->path, &status);
    if (fd < 0)
        return;
    if (path_policy_path_of(fd, path) == 0) {
        char *name = strrchr(path, '/');
        *name++ = '\0';
        if (path_policy_is_of_repository(path, "blobs"))
            hub_etag_digest(name, strlen(name), &fact->blob);
    }
    close(fd);
}

/* What the symlink's text ends with is a blob's name: it counts when the blob of that name, in a
 * repository's directory of blobs, is what the symlink leads to. */
static void look_at_symlink(const struct hub *hub, struct hub_fact *fact)
{
    const struct scan_entry *entry = entry_of(hub, fact->entry);
    const char *blob = blob_in(entry->target);
    struct stat status;
    struct digest digest;
    if (blob == NULL) {
        look_at_end(hub, fact);
        return;
    }
    const char *name = strchr(blob, '/') + 1;
    if (!hub_etag_digest(name, strlen(name), &digest))
        return;
    int fd = open_said(hub, entry, (size_t)(blob - entry->target));
    if (fd < 0)
        return;
    if (is_repository(fd) && fstatat(fd, blob, &status, 0) == 0 && status.st_dev == entry->device &&
        status.st_ino == entry->inode)
        fact->blob = digest;
    close(fd);
}

/* The directory at or below the source is `part` of a repository. */
static bool is_of_repository(const struct hub *hub, uint32_t directory, const char *part)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s%s%s", checkpoint_of(hub)->source,
                          directory == 0 ? "" : "/", entry_of(hub, directory)->path);
    return length < (int)sizeof path && path_policy_is_of_repository(path, part);
}

static void look_at_blob(const struct hub *hub, struct hub_fact *fact)
{
    const struct scan_entry *entry = entry_of(hub, fact->entry);
    if (fact->is_blob)
        hub_etag_digest(entry->name, strlen(entry->name), &fact->blob);
    else if (entry->target != NULL)
        look_at_symlink(hub, fact);
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
    hub->commit_count += added == 1;
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
    parallel_run(hub->fact_count, find_fact, hub);
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

/* Has all metadata of the directory in focus known at once: each name by itself would take as long
 * as all of them. */
static int list_metadata(struct scan *scan, uint32_t top)
{
    char name[PATH_MAX];
    if (scan->focus == SCAN_NONE)
        return 0;
    size_t skip = top == 0 ? 0 : strlen(scan->entries[top].path) + 1;
    const char *path = scan->entries[scan->focus].path;
    if (top >= scan->focus ||
        snprintf(name, sizeof name, DOWNLOAD "/%s", path + skip) >= (int)sizeof name)
        return 0;
    uint32_t directory = scan_find(scan, top, name);
    return directory == SCAN_NONE ? 0 : scan_list(scan, directory);
}

/* For each directory the next one upwards that a download was made to, or SCAN_NONE. */
static int find_downloads(struct hub *hub)
{
    struct scan *scan = &hub->gathering->discovery->scan;
    hub->known = scan->count;
    hub->download_to = calloc((size_t)scan->count + 1, sizeof *hub->download_to);
    if (hub->download_to == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < hub->known; i++) {
        bool is_one = scan_is_near(scan, i) && scan_find(scan, i, DOWNLOAD) != SCAN_NONE;
        hub->download_to[i] = is_one   ? i
                              : i == 0 ? SCAN_NONE
                                       : hub->download_to[scan->entries[i].parent];
        if (is_one && list_metadata(scan, i) != 0)
            return -ENOMEM;
    }
    return 0;
}

static uint32_t download_above(const struct hub *hub, uint32_t directory)
{
    while (directory >= hub->known)
        directory = entry_of(hub, directory)->parent;
    return hub->download_to[directory];
}

/* The .metadata of a file in the download directory of the next directory upwards that has it. */
static uint32_t metadata_of(const struct hub *hub, const struct scan_entry *file)
{
    struct scan *scan = &hub->gathering->discovery->scan;
    char name[PATH_MAX];
    uint32_t top = download_above(hub, file->parent);
    while (top != SCAN_NONE) {
        size_t skip = top == 0 ? 0 : strlen(scan->entries[top].path) + 1;
        if (snprintf(name, sizeof name, DOWNLOAD "/%s.metadata", file->path + skip) <
            (int)sizeof name) {
            uint32_t entry = scan_find(scan, top, name);
            if (entry != SCAN_NONE && scan->entries[entry].kind == SCAN_FILE)
                return entry;
        }
        top = top == 0 ? SCAN_NONE : hub->download_to[scan->entries[top].parent];
    }
    return SCAN_NONE;
}

static int look_at_file(struct hub *hub, uint32_t number, bool is_blob)
{
    const struct scan_entry *entry = entry_of(hub, number);
    uint32_t metadata = metadata_of(hub, entry);
    if (metadata != SCAN_NONE)
        hub->gathering->discovery->scan.entries[number].told_of = true;
    if (metadata == SCAN_NONE && entry->target == NULL && !is_blob)
        return 0;
    hub->facts[hub->fact_count++] =
        (struct hub_fact){.entry = number, .metadata = metadata, .is_blob = is_blob};
    return hub->fact_count == BATCH ? use_facts(hub) : 0;
}

static int look_at_directory(struct hub *hub, uint32_t directory)
{
    const struct scan *scan = &hub->gathering->discovery->scan;
    const struct scan_entry *parent = &scan->entries[directory];
    bool blobs = is_of_repository(hub, directory, "blobs");
    int result = 0;
    for (uint32_t i = 0; i < parent->child_count && result == 0; i++) {
        const struct scan_entry *entry = &scan->entries[parent->first_child + i];
        if (entry->kind == SCAN_FILE && !path_policy_is_private(entry->path))
            result = look_at_file(hub, parent->first_child + i, blobs);
    }
    return result;
}

static int look_at_files(struct hub *hub)
{
    const struct scan *scan = &hub->gathering->discovery->scan;
    int result = 0;
    for (uint32_t i = 0; i < scan->count && result == 0; i++)
        if (scan_is_focus(scan, i))
            result = look_at_directory(hub, i);
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
    uint32_t directory; /* scan entry of that which its names are relative to */
    const char *prefix; /* of the directory within the repository: "" or "sub/directory/" */
    uint32_t commit;    /* that files must be at by their metadata; NO_COMMIT: all are */
};

static int claim_tree(struct hub *hub, const struct digest_list *list, struct tree_scope scope,
                      const char *origin)
{
    size_t prefix = strlen(scope.prefix);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct listed_digest *item = &list->items[i];
        if (strncmp(item->name, scope.prefix, prefix) != 0 ||
            gathering_place_of(hub->gathering, scope.directory, item->name + prefix) ==
                PLACE_ELSEWHERE)
            continue;
        struct claim claim = {.rank = CLAIM_TREE,
                              .digest = item->digest,
                              .origin = origin,
                              .has_size = item->has_size,
                              .size = item->size};
        claim.file = gathering_find_file(hub->gathering, scope.directory, item->name + prefix);
        if (claim.file == SCAN_NONE ||
            (scope.commit != NO_COMMIT && hub->commit_of[claim.file] != scope.commit))
            continue;
        if (claim_add(&hub->gathering->claims, &claim) != 0)
            return -ENOMEM;
    }
    return 0;
}

/* With the directory that the listing is about, and not with each one below that. One of a commit
 * is looked at only where files of that are. */
static bool is_told_of(const struct hub *hub, struct tree_scope scope)
{
    return scope.commit != NO_COMMIT ||
           scan_is_focus(&hub->gathering->discovery->scan, scope.directory);
}

static void tell_unread(struct hub *hub, struct tree_scope scope, const char *path, int result)
{
    struct unshard_error error;
    error_set(&error, "unreadable", -result, "%s: the listing cannot be read: %s", path,
              strerrordesc_np(-result));
    if (is_told_of(hub, scope))
        problem_add(&hub->gathering->problems, &error);
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
    } else if (result != -ENOMEM) {
        if (is_told_of(hub, scope) && result == -ENOTSUP)
            note_add(&discovery->notes, &discovery->checkpoint->arena, "%s; it is ignored.",
                     error.message);
        else if (is_told_of(hub, scope))
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
        tell_unread(hub, scope, path, result);
        result = 0;
    }
    free(text);
    return result;
}

/* The listings of the commits that files below a directory were downloaded from. */
static int look_at_local_trees(struct hub *hub, uint32_t directory)
{
    struct scan *scan = &hub->gathering->discovery->scan;
    uint32_t trees = scan_find(scan, directory, TREES);
    struct tree_scope scope = {.directory = directory, .prefix = ""};
    int result = trees != SCAN_NONE ? scan_list(scan, trees) : 0;
    for (uint32_t i = 0; trees != SCAN_NONE && i < scan->entries[trees].child_count && result == 0;
         i++) {
        uint32_t number = scan->entries[trees].first_child + i;
        const struct scan_entry *entry = &scan->entries[number];
        if (entry->kind == SCAN_FILE && strlen(entry->name) > HUB_COMMIT_DIGITS &&
            strcmp(entry->name + HUB_COMMIT_DIGITS, JSON_SUFFIX) == 0 &&
            string_map_find(&hub->commits, entry->name, HUB_COMMIT_DIGITS, &scope.commit))
            result = use_tree_entry(hub, number, scope);
    }
    return result;
}

/* "COMMIT" or "COMMIT/sub/directory" behind ".../snapshots/" of the source; NULL without one. */
static const char *snapshot_of(const struct unshard_checkpoint *checkpoint)
{
    static const char snapshots[] = "/snapshots/";
    if (checkpoint->repository == NULL)
        return NULL;
    const char *rest = checkpoint->source + strlen(checkpoint->repository);
    if (strncmp(rest, snapshots, sizeof snapshots - 1) != 0)
        return NULL;
    rest += sizeof snapshots - 1;
    return hub_is_commit(rest, strcspn(rest, "/")) ? rest : NULL;
}

/* The listing lies outside the source, in the same cache repository, so it is opened by itself: a
 * regular file there and no symlink. */
static int read_cache_tree(struct hub *hub, const char *path, const char *shown,
                           struct tree_scope scope)
{
    char *text = NULL;
    size_t length = 0;
    if (scan_look_outside(&hub->gathering->discovery->scan, path) != 0)
        return -ENOMEM;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    int result = fd < 0 ? -errno : discovery_read_fd(fd, DIGEST_LIST_MAX_BYTES, &text, &length);
    if (fd >= 0)
        close(fd);
    if (result == 0) {
        result = use_tree(hub, text, length, shown, scope);
    } else if (result != -ENOMEM) {
        tell_unread(hub, scope, shown, result);
        result = 0;
    }
    free(text);
    return result;
}

/* The listing of a commit in the repository around the source. */
static int look_at_outer_tree(struct hub *hub, const char *commit, struct tree_scope scope)
{
    struct unshard_checkpoint *checkpoint = checkpoint_of(hub);
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/trees/%.40s" JSON_SUFFIX, checkpoint->repository, commit) >=
        (int)sizeof path)
        return 0;
    const char *shown = path + strlen(checkpoint->repository) + 1;
    shown = arena_copy_string(&checkpoint->arena, shown, strlen(shown));
    return shown == NULL ? -ENOMEM : read_cache_tree(hub, path, shown, scope);
}

static int look_at_source_tree(struct hub *hub)
{
    const char *commit = snapshot_of(checkpoint_of(hub));
    char prefix[PATH_MAX] = "";
    if (commit == NULL)
        return 0;
    if (commit[HUB_COMMIT_DIGITS] == '/')
        snprintf(prefix, sizeof prefix, "%s/", commit + HUB_COMMIT_DIGITS + 1);
    return look_at_outer_tree(hub, commit,
                              (struct tree_scope){.prefix = prefix, .commit = NO_COMMIT});
}

/* The listing of a snapshot below the source. */
static int look_at_snapshot_tree(struct hub *hub, uint32_t directory)
{
    struct scan *scan = &hub->gathering->discovery->scan;
    const struct scan_entry *snapshot = &scan->entries[directory];
    struct tree_scope scope = {.directory = directory, .prefix = "", .commit = NO_COMMIT};
    char path[HUB_COMMIT_DIGITS + sizeof "trees/" JSON_SUFFIX];
    if (!hub_is_commit(snapshot->name, strlen(snapshot->name)) ||
        !is_of_repository(hub, snapshot->parent, "snapshots"))
        return 0;
    if (snapshot->parent == 0)
        return look_at_outer_tree(hub, snapshot->name, scope);
    snprintf(path, sizeof path, "trees/%.40s" JSON_SUFFIX, snapshot->name);
    uint32_t entry = scan_find(scan, scan->entries[snapshot->parent].parent, path);
    if (entry == SCAN_NONE || scan->entries[entry].kind != SCAN_FILE)
        return 0;
    return use_tree_entry(hub, entry, scope);
}

static int look_at_trees(struct hub *hub)
{
    const struct scan *scan = &hub->gathering->discovery->scan;
    int result = look_at_source_tree(hub);
    for (uint32_t i = 0; i < hub->known && result == 0; i++) {
        if (!scan_is_near(scan, i))
            continue;
        if (hub->download_to[i] == i)
            result = look_at_local_trees(hub, i);
        if (result == 0 && i > 0)
            result = look_at_snapshot_tree(hub, i);
    }
    return result;
}

int expectations_from_hub(struct gathering *gathering)
{
    struct hub hub = {.gathering = gathering};
    size_t files = (size_t)gathering->discovery->checkpoint->file_count + 1;
    int result = find_downloads(&hub);
    hub.facts = calloc(BATCH, sizeof *hub.facts);
    hub.commit_of = calloc(files, sizeof *hub.commit_of);
    if (hub.facts == NULL || hub.commit_of == NULL)
        result = -ENOMEM;
    if (result == 0) {
        memset(hub.commit_of, 0xff, files * sizeof *hub.commit_of);
        result = look_at_files(&hub);
    }
    if (result == 0)
        result = look_at_trees(&hub);
    if (result == 0)
        result = claims_share(&gathering->claims, CLAIM_BLOB, gathering->discovery->checkpoint);
    free(hub.facts);
    free(hub.download_to);
    free(hub.commit_of);
    string_map_free(&hub.commits);
    return result;
}
