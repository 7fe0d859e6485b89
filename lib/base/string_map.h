/* A hash map from byte strings (any content) to 32-bit numbers. Keys are not copied: they must
 * outlive the map. Hashing is seeded XXH3, so that crafted names cannot make it quadratic. Not
 * thread-safe for writers; any number of concurrent readers. */
#ifndef BASE_STRING_MAP_H
#define BASE_STRING_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct string_map_slot;
struct string_map {
    struct string_map_slot *slots; /* zero-initialised is an empty map */
    size_t capacity, count;
    uint64_t seed;
};

/* Looks the key up and, when it is new, adds it with the value. *existing tells the value that
 * stands under the key afterwards. 1: added, 0: was there already, -ENOMEM. */
int string_map_add(struct string_map *map, const char *key, size_t length, uint32_t value,
                   uint32_t *existing);
/* True and *value when the key is there. */
bool string_map_find(const struct string_map *map, const char *key, size_t length, uint32_t *value);
void string_map_free(struct string_map *map);

#endif
