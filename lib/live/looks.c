/* SPDX-License-Identifier: MIT
 *
 * The looks that are under way, and which of them hang. Each directory has one at most, so what
 * hangs is told by the directory that does not answer, however many wait for it or for what lies
 * below it, and whoever they are: readers, a prefetcher, a command. */
#include "live/live.h"

#include <stdlib.h>
#include <string.h>

#define MOST_STUCK 16U
/* A look that takes longer hangs, unless the one before took as long: then one that takes four
 * times as long does, or ten seconds. */
#define STALL_NS UINT64_C(2000000000)
#define MOST_STALL_NS UINT64_C(10000000000)

uint64_t live_look_begins(struct unshard_tree *tree, struct directory *directory)
{
    directory->look_ns = tree->clock();
    directory->looking = true;
    directory->next_look = NULL;
    *tree->looks_end = directory;
    tree->looks_end = &directory->next_look;
    return directory->look_ns;
}

void live_look_ends(struct unshard_tree *tree, struct directory *directory)
{
    struct directory **link = &tree->first_look;
    while (*link != directory)
        link = &(*link)->next_look;
    *link = directory->next_look;
    if (tree->looks_end == &directory->next_look)
        tree->looks_end = link;
    directory->looking = false;
}

static bool is_stalled(const struct directory *directory, uint64_t now)
{
    uint64_t limit = directory->fresh_ns; /* four times what the last look took, or a second */
    limit = limit < STALL_NS ? STALL_NS : limit > MOST_STALL_NS ? MOST_STALL_NS : limit;
    return now - directory->look_ns > limit;
}

/* The first that hangs, from `at` on; NULL: none does. */
static const struct directory *stalled_from(const struct directory *at, uint64_t now)
{
    while (at != NULL && !is_stalled(at, now))
        at = at->next_look;
    return at;
}

static double seconds_since(uint64_t then, uint64_t now)
{
    uint64_t milliseconds = (now - then + 500000) / 1000000;
    return (double)milliseconds / 1000;
}

static const char *name_of(const struct directory *directory)
{
    return directory->path[0] != '\0' ? directory->path : ".";
}

/* Counts those that hang, and makes room for the first of them, with their names. */
static void make_room(const struct unshard_tree *tree, uint64_t now, struct unshard_looks *out)
{
    size_t bytes = 0;
    for (const struct directory *at = tree->first_look; (at = stalled_from(at, now)) != NULL;
         at = at->next_look)
        if (out->stalled++ < MOST_STUCK)
            bytes += sizeof *out->stuck + strlen(name_of(at)) + 1;
    out->stuck = bytes > 0 ? malloc(bytes) : NULL;
    if (out->stuck != NULL)
        out->stuck_count = out->stalled < MOST_STUCK ? out->stalled : MOST_STUCK;
}

/* Names lie behind the array. */
static void fill_in(const struct unshard_tree *tree, uint64_t now, struct unshard_looks *out)
{
    char *name = (char *)&out->stuck[out->stuck_count];
    const struct directory *at = stalled_from(tree->first_look, now);
    for (uint32_t i = 0; at != NULL && i < out->stuck_count; i++) {
        out->stuck[i] = (struct unshard_stuck_look){.directory = name,
                                                    .seconds = seconds_since(at->look_ns, now)};
        name = stpcpy(name, name_of(at)) + 1;
        at = stalled_from(at->next_look, now);
    }
}

void unshard_tree_looks(struct unshard_tree *tree, struct unshard_looks *out)
{
    *out = (struct unshard_looks){0};
    pthread_mutex_lock(&tree->lock);
    uint64_t now = tree->clock();
    if (tree->first_look != NULL)
        out->oldest_seconds = seconds_since(tree->first_look->look_ns, now);
    make_room(tree, now, out);
    if (out->stuck != NULL)
        fill_in(tree, now, out);
    pthread_mutex_unlock(&tree->lock);
}
