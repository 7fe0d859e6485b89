/* SPDX-License-Identifier: MIT */
#ifndef DIGEST_DIGEST_CACHE_DIRECTORY_H
#define DIGEST_DIGEST_CACHE_DIRECTORY_H

#include "unshard.h"

/* Finds and makes the directory of the cache, see digest_cache.h. Returns a descriptor, or a
 * negative errno with *error. */
int cache_directory_open(struct unshard_error *error);

/* Whether an object of this status can only have been written by this user. */
struct stat;
bool cache_is_own(const struct stat *status);

/* What may be added before it is looked again; that others add as much is allowed for. */
struct cache_room {
    int64_t bytes, entries;
};

/* When there are more than limit_bytes or a fixed number, removes entries, least recently used
 * first, until there is some room again (none where the limit is small); and what writers that were
 * killed left behind an hour ago. Looks at every entry. */
struct cache_room cache_directory_trim(int directory, uint64_t limit_bytes);

#endif
