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

/* Removes entries, least recently used first, until at most limit_bytes and a fixed number are
 * left, and what writers that were killed left behind an hour ago. */
void cache_directory_trim(int directory, uint64_t limit_bytes);

#endif
