/* SPDX-License-Identifier: MIT */
#include "live/directories.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FIRST_SLOTS ((size_t)64)
/* How many to go past that cannot be forgotten, at a time. */
#define MOST_PASSED 16U
#define LEAST 8U

static uint64_t hash_of(const struct directories *directories, const char *path)
{
    return XXH3_64bits_withSeed(path, strlen(path), directories->seed);
}

static struct directory **slot_of(const struct directories *directories, uint64_t hash)
{
    return &directories->slots[hash & (directories->slot_count - 1)];
}

static struct directory *find(const struct directories *directories, const char *path,
                              uint64_t hash)
{
    struct directory *at = directories->slot_count > 0 ? *slot_of(directories, hash) : NULL;
    while (at != NULL && (at->hash != hash || strcmp(at->path, path) != 0))
        at = at->next;
    return at;
}

struct directory *directories_find(const struct directories *directories, const char *path)
{
    return find(directories, path, hash_of(directories, path));
}

/* ---- by age ------------------------------------------------------------------------------------
 */

static void take_out(struct directories *directories, struct directory *directory)
{
    *(directory->newer != NULL ? &directory->newer->older : &directories->newest) =
        directory->older;
    *(directory->older != NULL ? &directory->older->newer : &directories->oldest) =
        directory->newer;
}

static void put_newest(struct directories *directories, struct directory *directory)
{
    directory->newer = NULL;
    directory->older = directories->newest;
    *(directory->older != NULL ? &directory->older->newer : &directories->oldest) = directory;
    directories->newest = directory;
}

static void make_newest(struct directories *directories, struct directory *directory)
{
    if (directories->newest == directory)
        return;
    take_out(directories, directory);
    put_newest(directories, directory);
}

/* ---- by path -----------------------------------------------------------------------------------
 */

static bool grow(struct directories *directories)
{
    struct directories grown = *directories;
    if (directories->count < directories->slot_count)
        return true;
    grown.slot_count = directories->slot_count > 0 ? directories->slot_count * 2 : FIRST_SLOTS;
    grown.slots = calloc(grown.slot_count, sizeof *grown.slots);
    if (grown.slots == NULL)
        return directories->slot_count > 0; /* it is slower then */
    for (struct directory *at = directories->newest; at != NULL; at = at->older) {
        struct directory **slot = slot_of(&grown, at->hash);
        at->next = *slot;
        *slot = at;
    }
    free(directories->slots);
    *directories = grown;
    return true;
}

static struct directory *add(struct directories *directories, const char *path, uint64_t hash)
{
    size_t length = strlen(path);
    struct directory *directory = calloc(1, sizeof *directory + length + 1);
    if (directory == NULL || !grow(directories)) {
        free(directory);
        return NULL;
    }
    directory->hash = hash;
    memcpy(directory->path, path, length + 1);
    struct directory **slot = slot_of(directories, hash);
    directory->next = *slot;
    *slot = directory;
    put_newest(directories, directory);
    directories->count++;
    return directory;
}

struct directory *directories_get(struct directories *directories, const char *path)
{
    uint64_t hash = hash_of(directories, path);
    struct directory *directory = find(directories, path, hash);
    if (directory == NULL)
        return add(directories, path, hash);
    make_newest(directories, directory);
    return directory;
}

void directories_set_layout(struct directories *directories, struct directory *directory,
                            struct unshard_checkpoint *layout)
{
    directories->bytes -= directory->bytes;
    unshard_layout_release(directory->layout);
    directory->layout = layout;
    directory->bytes = layout != NULL ? layout_memory(layout) : 0;
    directories->bytes += directory->bytes;
}

/* ---- forgetting --------------------------------------------------------------------------------
 */

static bool is_in_use(const struct directory *directory)
{
    return directory->users > 0 || directory->looking;
}

static void forget(struct directories *directories, struct directory *directory)
{
    struct directory **at = slot_of(directories, directory->hash);
    while (*at != directory)
        at = &(*at)->next;
    *at = directory->next;
    take_out(directories, directory);
    directories_set_layout(directories, directory, NULL);
    directories->count--;
    free(directory);
}

/* The name behind "PATH/", up to the next slash; NULL: it is not below the path. */
static const char *name_below(const char *path, const char *top, size_t *length)
{
    size_t skip = strlen(top);
    if (path[0] == '\0' || (skip > 0 && (strncmp(path, top, skip) != 0 || path[skip] != '/')))
        return NULL;
    path += skip + (skip > 0);
    *length = strcspn(path, "/");
    return path;
}

static bool is_shown(const struct unshard_checkpoint *layout, const char *name, size_t length)
{
    char text[256];
    if (length >= sizeof text)
        return false;
    memcpy(text, name, length);
    text[length] = '\0';
    const struct unshard_node *node = unshard_node_child(layout, 0, text);
    return node != NULL && node->kind == UNSHARD_NODE_DIRECTORY && !node->made;
}

void directories_forget_vanished(struct directories *directories, const char *path,
                                 const struct unshard_checkpoint *layout)
{
    struct directory *older;
    for (struct directory *at = directories->newest; at != NULL; at = older) {
        size_t length;
        const char *name = name_below(at->path, path, &length);
        older = at->older;
        if (name != NULL && !is_in_use(at) && (layout == NULL || !is_shown(layout, name, length)))
            forget(directories, at);
    }
}

void directories_shrink(struct directories *directories, size_t most, size_t most_bytes)
{
    struct directory *newer;
    unsigned passed = 0;
    for (struct directory *at = directories->oldest; at != NULL && passed < MOST_PASSED;
         at = newer) {
        newer = at->newer;
        if ((directories->count <= most && directories->bytes <= most_bytes) ||
            directories->count <= LEAST)
            return;
        if (is_in_use(at) || (at->layout != NULL && layout_is_shared(at->layout))) {
            make_newest(directories, at); /* not to come to it each time */
            passed++;
        } else {
            forget(directories, at);
        }
    }
}

void directories_free(struct directories *directories)
{
    struct directory *older;
    for (struct directory *at = directories->newest; at != NULL; at = older) {
        older = at->older;
        unshard_layout_release(at->layout);
        free(at);
    }
    free(directories->slots);
    *directories = (struct directories){0};
}
