/* SPDX-License-Identifier: MIT */
#include "tree/scan.h"

#include "base/error.h"
#include "base/lazy_array.h"
#include "tree/listing.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Names that are looked at together. */
#define LOOKS 4096U
/* Directories of our own may be added to what is on disk, and single names. */
#define CAPACITY (SCAN_MAX_ENTRIES + 65536U)

struct scanner {
    struct unshard_checkpoint *checkpoint;
    struct note_list *notes;
    struct scan *scan;
    uint32_t together; /* directories to list at once */
    bool full;
    uint32_t listing; /* the directory at hand, of scan_list */
    bool aside;       /* at what is not in focus: nothing is noted */
    /* Directories that were reached through several symlinks: number in `places` of each, and in
     * how many places it was. Keys live in the checkpoint's arena. */
    struct string_map linked;
    unsigned *places;
};

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Not later than any time that a file is given from now on, if the file system is this machine's.
 */
static int64_t coarse_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return nanoseconds(now);
}

static void set_status(struct scan_entry *entry, const struct stat *status)
{
    entry->size = status->st_size < 0 ? 0 : (uint64_t)status->st_size;
    entry->device = status->st_dev;
    entry->inode = status->st_ino;
    entry->mtime_ns = nanoseconds(status->st_mtim);
    entry->ctime_ns = nanoseconds(status->st_ctim);
    entry->mode = status->st_mode;
    entry->uid = status->st_uid;
    entry->gid = status->st_gid;
}

/* In the arena: of the many entries that there may be, few have one. */
__attribute__((format(printf, 4, 5))) static const struct unshard_error *
keep_problem(struct scanner *scanner, const char *code, int number, const char *format, ...)
{
    static const struct unshard_error no_memory = {.code = "no-memory",
                                                   .errno_value = ENOMEM,
                                                   .offset = UNSHARD_NO_OFFSET,
                                                   .message = "out of memory"};
    struct unshard_error *problem = arena_alloc(&scanner->checkpoint->arena, sizeof *problem);
    char message[sizeof problem->message];
    va_list arguments;
    if (problem == NULL)
        return &no_memory;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    error_set(problem, code, number, "%s", message);
    return problem;
}

static void exclude(struct scanner *scanner, struct scan_entry *entry, const char *code, int number,
                    const char *why)
{
    char quoted[256];
    error_quote(quoted, sizeof quoted, entry->path, strlen(entry->path));
    entry->kind = SCAN_EXCLUDED;
    entry->problem = keep_problem(scanner, code, number, "%s: %s", quoted, why);
    if (!scanner->aside)
        note_add(scanner->notes, &scanner->checkpoint->arena, "%s is left out: %s.", quoted, why);
}

/* Names with a dot in front are of programs, for themselves: ._NAME, .NAME.XXXXXX, .no_exist; but a
 * repository of the hub's cache may lie below .cache. */
static bool is_set_aside(const char *name, bool parent_is)
{
    return name[0] == '.' || (parent_is && !path_policy_is_repository(name, strlen(name)));
}

/* Appends an entry and returns it, or NULL when memory is short. */
static struct scan_entry *append_to(struct scan *scan, struct arena *arena, uint32_t parent,
                                    const char *name)
{
    if (scan->count == CAPACITY)
        return NULL;
    struct scan_entry *entry = &scan->entries[scan->count];
    entry->file = SCAN_NONE;
    entry->view = UNSHARD_NO_VIEW;
    entry->parent = parent;
    size_t name_length = strlen(name), prefix = 0;
    if (scan->count > 0) {
        prefix = strlen(scan->entries[parent].path);
        entry->depth = scan->entries[parent].depth + 1;
        entry->through_symlink = scan->entries[parent].through_symlink;
        entry->links = scan->entries[parent].links;
        entry->set_aside = is_set_aside(name, scan->entries[parent].set_aside);
    }
    char *path = arena_alloc(arena, prefix + name_length + 2);
    if (path == NULL)
        return NULL;
    if (prefix > 0) {
        memcpy(path, scan->entries[parent].path, prefix);
        path[prefix++] = '/';
    }
    memcpy(path + prefix, name, name_length + 1);
    entry->path = path;
    entry->name = path + prefix;
    scan->count++;
    return entry;
}

static struct scan_entry *append(struct scanner *scanner, uint32_t parent, const char *name)
{
    return append_to(scanner->scan, &scanner->checkpoint->arena, parent, name);
}

uint32_t scan_add_directory(struct scan *scan, struct arena *arena, uint32_t parent,
                            const char *name)
{
    struct scan_entry *entry = append_to(scan, arena, parent, name);
    if (entry == NULL)
        return SCAN_NONE;
    const struct scan_entry *like = &scan->entries[parent];
    entry->kind = SCAN_DIRECTORY;
    entry->listed = true;
    entry->made = true;
    entry->mtime_ns = like->mtime_ns;
    entry->ctime_ns = like->ctime_ns;
    entry->mode = like->mode;
    entry->uid = like->uid;
    entry->gid = like->gid;
    return scan->count - 1;
}

static bool is_own_ancestor(const struct scan *scan, const struct scan_entry *entry)
{
    for (uint32_t up = entry->parent;; up = scan->entries[up].parent) {
        const struct scan_entry *above = &scan->entries[up];
        if (above->device == entry->device && above->inode == entry->inode)
            return true;
        if (up == 0)
            return false;
    }
}

/* In how many places the directory was reached through several symlinks, this one included. 0: no
 * memory. */
static unsigned count_place(struct scanner *scanner, const struct scan_entry *entry)
{
    uint64_t key[2] = {entry->device, entry->inode};
    uint32_t number;
    if (string_map_find(&scanner->linked, (const char *)key, sizeof key, &number))
        return ++scanner->places[number];
    number = (uint32_t)scanner->linked.count;
    unsigned *grown = reallocarray(scanner->places, number + (size_t)1, sizeof *grown);
    if (grown == NULL)
        return 0;
    scanner->places = grown;
    const char *kept =
        arena_copy_string(&scanner->checkpoint->arena, (const char *)key, sizeof key);
    if (kept == NULL || string_map_add(&scanner->linked, kept, sizeof key, number, NULL) < 0)
        return 0;
    return scanner->places[number] = 1;
}

static bool is_linked_too_often(struct scanner *scanner, const struct scan_entry *entry)
{
    if (scanner->scan->focus != SCAN_NONE)
        return entry->links > SCAN_MAX_LINKS;
    unsigned places = entry->links < 2 ? 1 : count_place(scanner, entry);
    return places == 0 || places > SCAN_MAX_LINKED;
}

/* Decides by the type of the object that the entry's name leads to; its status is set. */
static void classify(struct scanner *scanner, struct scan_entry *entry)
{
    if (S_ISREG(entry->mode)) {
        entry->kind = SCAN_FILE;
    } else if (S_ISDIR(entry->mode)) {
        entry->kind = SCAN_DIRECTORY;
        if (entry->depth > SCAN_MAX_DEPTH)
            exclude(scanner, entry, "too-deep", ELOOP, "the directory is nested too deeply");
        else if (is_own_ancestor(scanner->scan, entry))
            exclude(scanner, entry, "symlink-loop", ELOOP, "it leads back to a directory above it");
        else if (is_linked_too_often(scanner, entry))
            exclude(scanner, entry, "linked-too-often", ELOOP,
                    "symlinks in linked directories lead to it from more places than are shown");
    } else {
        exclude(scanner, entry, "not-regular", EINVAL,
                S_ISFIFO(entry->mode)   ? "it is a FIFO"
                : S_ISSOCK(entry->mode) ? "it is a socket"
                                        : "it is a device");
    }
}

static void describe_bad_symlink(struct scanner *scanner, struct scan_entry *entry, int number)
{
    char target[160], why[256];
    error_quote(target, sizeof target, entry->target, strlen(entry->target));
    if (number == EXDEV) {
        snprintf(why, sizeof why,
                 "it is a symlink to %s, outside the checkpoint; -o follow_symlinks follows it",
                 target);
        exclude(scanner, entry, "outside", number, why);
        return;
    }
    const char *what = number == ENOENT  ? "does not exist"
                       : number == ELOOP ? "is a symlink loop"
                                         : "cannot be reached";
    const char *code = number == ELOOP ? "symlink-loop" : "dangling-symlink";
    if ((number == ENOENT || number == ELOOP) &&
        path_policy_target_is_inside(entry->target, entry->depth - 1)) {
        char quoted[200];
        entry->kind = SCAN_SYMLINK;
        entry->problem = keep_problem(
            scanner, code, number, "%s: symlink to %s, which %s",
            error_quote(quoted, sizeof quoted, entry->path, strlen(entry->path)), target, what);
        return;
    }
    snprintf(why, sizeof why, "it is a symlink to %s, which %s", target, what);
    exclude(scanner, entry, code, number, why);
}

static int follow_symlink(struct scanner *scanner, const struct look *look,
                          struct scan_entry *entry)
{
    entry->target =
        arena_copy_string(&scanner->checkpoint->arena, look->target, strlen(look->target));
    if (entry->target == NULL)
        return -ENOMEM;
    if (look->target_result < 0) {
        describe_bad_symlink(scanner, entry, -look->target_result);
        return 0;
    }
    entry->through_symlink = true;
    if (S_ISDIR(look->target_status.st_mode) && entry->links < UINT8_MAX)
        entry->links++;
    set_status(entry, &look->target_status);
    classify(scanner, entry);
    return 0;
}

static int add_name(struct scanner *scanner, uint32_t parent, const struct look *look)
{
    struct scan_entry *entry = append(scanner, parent, look->name);
    if (entry == NULL || look->result == -ENOMEM)
        return -ENOMEM;
    entry->seen = look_seen(look);
    if (parent == 0 && strcmp(look->name, ".unshard") == 0) {
        exclude(scanner, entry, "reserved-name", EEXIST, "the mount shows its status there");
        return 0;
    }
    if (look->result != 0) {
        exclude(scanner, entry, "unreadable", -look->result, strerrordesc_np(-look->result));
        return 0;
    }
    set_status(entry, &look->status);
    if (look->target != NULL)
        return follow_symlink(scanner, look, entry);
    classify(scanner, entry);
    return 0;
}

/* ---- directories -------------------------------------------------------------------------------
 */

/* Directories that are listed together, and names of them that have been looked at. */
struct batch {
    uint32_t numbers[LISTINGS_AT_ONCE];
    struct listing listings[LISTINGS_AT_ONCE];
    uint32_t count;
    struct look *looks; /* LOOKS of them */
    uint32_t look_count, next_look;
};

/* Looks at names from one of a directory on, and of those that follow it. */
static void look_ahead(struct scanner *scanner, struct batch *batch, uint32_t at, size_t name)
{
    batch->look_count = batch->next_look = 0;
    for (; at < batch->count; at++, name = 0)
        for (; name < batch->listings[at].name_count && batch->look_count < LOOKS; name++)
            batch->looks[batch->look_count++] = (struct look){
                .listing = &batch->listings[at], .name = batch->listings[at].names[name]};
    looks_take(scanner->checkpoint, batch->looks, batch->look_count);
}

static int add_names(struct scanner *scanner, struct batch *batch, uint32_t at)
{
    const struct listing *listing = &batch->listings[at];
    uint32_t number = batch->numbers[at];
    scanner->scan->entries[number].first_child = scanner->scan->count;
    scanner->scan->entries[number].listed = true;
    for (size_t i = 0; i < listing->name_count; i++) {
        if (batch->next_look == batch->look_count)
            look_ahead(scanner, batch, at, i);
        struct look *look = &batch->looks[batch->next_look++];
        int result = add_name(scanner, number, look);
        free(look->target);
        look->target = NULL;
        if (result != 0)
            return result;
    }
    scanner->scan->entries[number].child_count = (uint32_t)listing->name_count;
    return 0;
}

/* What cannot be listed is left out, unless it is the source itself. */
static int add_directory(struct scanner *scanner, struct batch *batch, uint32_t at)
{
    const struct listing *listing = &batch->listings[at];
    uint32_t number = batch->numbers[at];
    if (listing->cut && !scanner->full) {
        scanner->full = true;
        note_add(scanner->notes, &scanner->checkpoint->arena,
                 "There are more than %u entries; the rest is left out.", SCAN_MAX_ENTRIES);
    }
    if (listing->result == 0)
        return add_names(scanner, batch, at);
    if (listing->result == -ENOMEM || number == 0)
        return listing->result;
    exclude(scanner, &scanner->scan->entries[number], "unreadable", -listing->result,
            strerrordesc_np(-listing->result));
    return 0;
}

static int add_batch(struct scanner *scanner, struct batch *batch)
{
    int result = 0;
    batch->look_count = batch->next_look = 0;
    for (uint32_t i = 0; i < batch->count && result == 0; i++)
        result = add_directory(scanner, batch, i);
    while (batch->next_look < batch->look_count)
        free(batch->looks[batch->next_look++].target);
    return result;
}

/* The next directories from *next on, as many as may be listed at once. */
static void choose_batch(struct scanner *scanner, struct batch *batch, uint32_t *next)
{
    const struct scan *scan = scanner->scan;
    batch->count = 0;
    for (; *next < scan->count && batch->count < scanner->together; ++*next) {
        if (scan->entries[*next].kind != SCAN_DIRECTORY)
            continue;
        batch->numbers[batch->count] = *next;
        batch->listings[batch->count++] = (struct listing){.path = scan->entries[*next].path};
    }
}

/* All directories, those that are found on the way too. */
static int scan_batches(struct scanner *scanner, struct batch *batch)
{
    uint32_t next = 0;
    for (;;) {
        uint32_t first = next;
        choose_batch(scanner, batch, &next);
        if (batch->count == 0)
            return 0;
        if (!listings_read(scanner->checkpoint, batch->listings, batch->count,
                           SCAN_MAX_ENTRIES - scanner->scan->count)) {
            scanner->together = 1; /* so that it is always the same ones that are left out */
            next = first;
            continue;
        }
        int result = add_batch(scanner, batch);
        listings_free(batch->listings, batch->count);
        if (result != 0)
            return result;
    }
}

/* With room for names to look at. */
static int with_batch(struct scanner *scanner, int (*what)(struct scanner *, struct batch *))
{
    struct batch *batch = calloc(1, sizeof *batch);
    struct look *looks = reallocarray(NULL, LOOKS, sizeof *looks); /* few are used as a rule */
    int result = -ENOMEM;
    if (batch != NULL && looks != NULL) {
        batch->looks = looks;
        result = what(scanner, batch);
    }
    free(batch);
    free(looks);
    return result;
}

static int cannot_list(struct scanner *scanner, const char *path, int result,
                       struct unshard_error *error)
{
    if (result == -ENOMEM)
        return error_no_memory(error);
    return error_set(error, "unreadable", -result, "%s%s%s: cannot list: %s",
                     scanner->checkpoint->source, path[0] != '\0' ? "/" : "", path,
                     strerrordesc_np(-result));
}

/* The source itself. */
static int begin(struct scanner *scanner, struct unshard_error *error)
{
    struct scan *scan = scanner->scan;
    struct stat status;
    scan->entries = lazy_array_new(CAPACITY, sizeof *scan->entries);
    if (scan->entries == NULL || append(scanner, 0, "") == NULL)
        return error_no_memory(error);
    if (fstat(scanner->checkpoint->source_fd, &status) != 0)
        return error_set(error, "unreadable", errno, "%s: %m", scanner->checkpoint->source);
    set_status(&scan->entries[0], &status);
    scan->entries[0].seen = look_seen(&(struct look){.name = "", .status = status});
    scan->entries[0].kind = SCAN_DIRECTORY;
    scan->entries[0].near = true;
    return 0;
}

int scan_tree(struct unshard_checkpoint *checkpoint, struct note_list *notes, struct scan *out,
              struct unshard_error *error)
{
    struct scanner scanner = {
        .checkpoint = checkpoint, .notes = notes, .scan = out, .together = listings_at_once()};
    out->focus = SCAN_NONE;
    int result = begin(&scanner, error);
    if (result != 0)
        return result;
    result = with_batch(&scanner, scan_batches);
    string_map_free(&scanner.linked);
    free(scanner.places);
    return result == 0 ? 0 : cannot_list(&scanner, "", result, error);
}

/* ---- one directory in focus --------------------------------------------------------------------
 */

static uint32_t known_single(const struct scan *scan, uint32_t directory, const char *name)
{
    uint32_t at = scan->entries[directory].first_single;
    while (at != 0 && strcmp(scan->entries[at].name, name) != 0)
        at = scan->entries[at].next_single;
    return at != 0 ? at : SCAN_NONE;
}

static bool is_known_absent(const struct scan *scan, uint32_t directory, const char *name)
{
    const struct scan_absent *at = scan->absent;
    while (at != NULL && (at->directory != directory || strcmp(at->name, name) != 0))
        at = at->next;
    return at != NULL;
}

static void keep_absent(struct scan *scan, uint32_t directory, const char *name)
{
    struct arena *arena = &scan->scanner->checkpoint->arena;
    struct scan_absent *absent = arena_alloc(arena, sizeof *absent);
    const char *kept = arena_copy_string(arena, name, strlen(name));
    if (absent == NULL || kept == NULL)
        return;
    *absent = (struct scan_absent){.next = scan->absent, .name = kept, .directory = directory};
    scan->absent = absent;
}

int scan_look_outside(struct scan *scan, const char *path)
{
    if (scan->scanner == NULL)
        return 0;
    struct arena *arena = &scan->scanner->checkpoint->arena;
    struct scan_outside *outside = arena_alloc(arena, sizeof *outside);
    const char *kept = arena_copy_string(arena, path, strlen(path));
    struct look look = {.name = path};
    if (outside == NULL || kept == NULL)
        return -ENOMEM;
    look_outside(&look);
    *outside = (struct scan_outside){.next = scan->outside, .path = kept, .seen = look_seen(&look)};
    scan->outside = outside;
    return 0;
}

/* A name in a directory of which not all are known. */
static uint32_t find_single(struct scan *scan, uint32_t directory, const char *name, size_t length)
{
    struct scanner *scanner = scan->scanner;
    char single[NAME_MAX + 1];
    if (scanner == NULL || length >= sizeof single)
        return SCAN_NONE;
    memcpy(single, name, length);
    single[length] = '\0';
    uint32_t number = known_single(scan, directory, single);
    struct look look = {.name = single};
    if (number != SCAN_NONE || is_known_absent(scan, directory, single))
        return number;
    look_take(scanner->checkpoint, scan->entries[directory].path, &look);
    if (look.result == -ENOENT || look.result == -ENOTDIR) {
        keep_absent(scan, directory, single);
        return SCAN_NONE;
    }
    number = scan->count;
    scanner->aside = true;
    bool added = add_name(scanner, directory, &look) == 0;
    scanner->aside = false;
    free(look.target);
    if (!added)
        return SCAN_NONE;
    scan->entries[number].next_single = scan->entries[directory].first_single;
    scan->entries[directory].first_single = number;
    return number;
}

static int list_one(struct scanner *scanner, struct batch *batch)
{
    batch->numbers[0] = scanner->listing;
    batch->listings[0] = (struct listing){.path = scanner->scan->entries[scanner->listing].path};
    batch->count = 1;
    listings_read(scanner->checkpoint, batch->listings, 1, SCAN_MAX_ENTRIES - scanner->scan->count);
    int result = batch->listings[0].result;
    if (result == 0)
        result = add_batch(scanner, batch);
    listings_free(batch->listings, 1);
    return result;
}

int scan_list(struct scan *scan, uint32_t directory)
{
    struct scanner *scanner = scan->scanner;
    struct scan_entry *entry = &scan->entries[directory];
    if (scanner == NULL || entry->kind != SCAN_DIRECTORY || entry->listed)
        return 0;
    scanner->listing = directory;
    scanner->aside = directory != scan->focus;
    int result = with_batch(scanner, list_one);
    scanner->aside = false;
    if (result != 0 && result != -ENOMEM) {
        entry->listed = true; /* it has no names */
        return directory == scan->focus ? result : 0;
    }
    return result;
}

/* The directory at a path, by the names on the way. */
static int find_focus(struct scan *scan, const char *path)
{
    uint32_t at = 0;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        uint32_t next = find_single(scan, at, path, length);
        if (next == SCAN_NONE)
            return -ENOENT;
        const struct scan_entry *entry = &scan->entries[next];
        if (entry->kind != SCAN_DIRECTORY)
            return entry->kind == SCAN_EXCLUDED ? -entry->problem->errno_value : -ENOTDIR;
        scan->entries[next].near = true;
        at = next;
        path += length + (path[length] == '/');
    }
    scan->focus = at;
    return 0;
}

int scan_focus(struct unshard_checkpoint *checkpoint, const char *path, struct note_list *notes,
               struct scan *out, struct unshard_error *error)
{
    struct scanner *scanner = calloc(1, sizeof *scanner);
    if (scanner == NULL)
        return error_no_memory(error);
    *scanner = (struct scanner){.checkpoint = checkpoint, .notes = notes, .scan = out};
    out->scanner = scanner;
    out->focus = 0;
    out->began_ns = coarse_time();
    int result = begin(scanner, error);
    if (result != 0)
        return result;
    result = find_focus(out, path);
    if (result == 0)
        result = scan_list(out, out->focus);
    return result == 0 ? 0 : cannot_list(scanner, path, result, error);
}

void scan_free(struct scan *scan)
{
    lazy_array_free(scan->entries, CAPACITY, sizeof *scan->entries);
    free(scan->scanner);
    *scan = (struct scan){0};
}

static int compare_prefix(const char *name, size_t length, const char *other)
{
    int order = strncmp(name, other, length);
    return order != 0 ? order : -(other[length] != '\0');
}

uint32_t scan_child(struct scan *scan, uint32_t directory, const char *name, size_t length)
{
    return scan->entries[directory].listed ? scan_listed_child(scan, directory, name, length)
                                           : find_single(scan, directory, name, length);
}

uint32_t scan_listed_child(const struct scan *scan, uint32_t directory, const char *name,
                           size_t length)
{
    uint32_t low = scan->entries[directory].first_child;
    uint32_t high = low + scan->entries[directory].child_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_prefix(name, length, scan->entries[middle].name);
        if (order == 0)
            return middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return SCAN_NONE;
}

/* A directory below that in focus. */
static bool is_below(const struct scan *scan, uint32_t directory)
{
    while (directory > scan->focus)
        directory = scan->entries[directory].parent;
    return directory == scan->focus;
}

uint32_t scan_find(struct scan *scan, uint32_t directory, const char *path)
{
    while (scan->entries[directory].kind == SCAN_DIRECTORY) {
        if (scan->scanner != NULL && !scan->entries[directory].listed &&
            is_below(scan, directory)) {
            if (scan_list(scan, directory) != 0)
                return SCAN_NONE;
            scan->entries[directory].near = true;
        }
        size_t length = strcspn(path, "/");
        uint32_t child = scan_child(scan, directory, path, length);
        if (child == SCAN_NONE || path[length] == '\0')
            return child;
        directory = child;
        path += length + 1;
    }
    return SCAN_NONE;
}
