/* SPDX-License-Identifier: MIT
 *
 * Open addressing with linear probing; the table is at most two thirds full. */
#include "base/string_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SMALLEST_CAPACITY ((size_t)16)

struct string_map_slot {
    const char *key; /* NULL: free */
    size_t length;
    uint32_t hash; /* the upper half; the lower half is where the slot is */
    uint32_t value;
};

static uint64_t new_seed(void)
{
    uint64_t seed;
    struct timespec now;

    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    /* Early at boot only. An address and the time still keep most attackers from the seed. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)(uintptr_t)&seed ^ (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec;
}

/* The slot that holds the key, or the free one where it belongs. */
static struct string_map_slot *locate(const struct string_map *map, const char *key, size_t length,
                                      uint64_t hash)
{
    size_t mask = map->capacity - 1;

    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        struct string_map_slot *slot = &map->slots[i];

        if (slot->key == NULL)
            return slot;
        if (slot->hash == (uint32_t)(hash >> 32) && slot->length == length &&
            memcmp(slot->key, key, length) == 0)
            return slot;
    }
}

static int grow(struct string_map *map)
{
    struct string_map larger = {.seed = map->capacity == 0 ? new_seed() : map->seed};

    larger.capacity = map->capacity == 0 ? SMALLEST_CAPACITY : map->capacity * 2;
    if (larger.capacity < map->capacity)
        return -ENOMEM;
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < map->capacity; i++) {
        const struct string_map_slot *slot = &map->slots[i];

        if (slot->key != NULL) {
            uint64_t hash = XXH3_64bits_withSeed(slot->key, slot->length, larger.seed);

            *locate(&larger, slot->key, slot->length, hash) = *slot;
        }
    }
    larger.count = map->count;
    free(map->slots);
    *map = larger;
    return 0;
}

int string_map_add(struct string_map *map, const char *key, size_t length, uint32_t value,
                   uint32_t *existing)
{
    if (key == NULL)
        key = "";
    if (map->count >= map->capacity / 3 * 2 && grow(map) != 0)
        return -ENOMEM;

    uint64_t hash = XXH3_64bits_withSeed(key, length, map->seed);
    struct string_map_slot *slot = locate(map, key, length, hash);
    int added = slot->key == NULL;

    if (added) {
        *slot = (struct string_map_slot){
            .key = key, .length = length, .hash = (uint32_t)(hash >> 32), .value = value};
        map->count++;
    }
    if (existing != NULL)
        *existing = slot->value;
    return added;
}

bool string_map_find(const struct string_map *map, const char *key, size_t length, uint32_t *value)
{
    if (map->capacity == 0)
        return false;
    if (key == NULL)
        key = "";

    const struct string_map_slot *slot =
        locate(map, key, length, XXH3_64bits_withSeed(key, length, map->seed));

    if (slot->key == NULL)
        return false;
    if (value != NULL)
        *value = slot->value;
    return true;
}

void string_map_free(struct string_map *map)
{
    free(map->slots);
    *map = (struct string_map){0};
}
