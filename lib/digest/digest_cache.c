/* SPDX-License-Identifier: MIT
 *
 * An entry is named by a hash of what does not change while a file lives: device, inode and the
 * digest that it must have. What changes (size, mtime) is in the entry, so that a new one takes the
 * place of the old one. */
#include "digest/digest_cache.h"

#include "base/error.h"
#include "base/read_fully.h"
#include "base/write_all.h"
#include "digest/digest_cache_directory.h"
#include "digest/digest_cache_entry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct digest_cache {
    int directory;
    uint64_t limit_bytes;
    atomic_llong bytes_left, entries_left; /* that may be added before it is trimmed */
    struct secret secret;
};

int digest_cache_open(uint64_t limit_bytes, struct digest_cache **out, struct unshard_error *error)
{
    *out = NULL;
    struct digest_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return error_no_memory(error);
    cache->limit_bytes = limit_bytes != 0 ? limit_bytes : DIGEST_CACHE_DEFAULT_LIMIT;
    cache->directory = cache_directory_open(error);
    int result = cache->directory < 0 ? cache->directory
                                      : secret_load(cache->directory, &cache->secret, error);
    if (result != 0) {
        digest_cache_close(cache);
        return result;
    }
    *out = cache;
    return 0;
}

void digest_cache_close(struct digest_cache *cache)
{
    if (cache == NULL)
        return;
    if (cache->directory >= 0)
        close(cache->directory);
    free(cache);
}

const struct secret *digest_cache_secret(const struct digest_cache *cache)
{
    return cache != NULL ? &cache->secret : NULL;
}

static void entry_name(const struct digest_cache_key *key, char out[DIGEST_MAX_HEX])
{
    struct {
        uint64_t device, inode, algorithm;
        uint8_t bytes[DIGEST_MAX_BYTES];
    } fixed = {key->device, key->inode, (uint64_t)key->whole.algorithm, {0}};
    memcpy(fixed.bytes, key->whole.bytes, digest_size(key->whole.algorithm));
    struct digest name = digest_of(DIGEST_XXH3_128, NULL, &fixed, sizeof fixed);
    digest_to_hex(&name, out);
}

/* ---- loading -----------------------------------------------------------------------------------
 */

/* 0, -EINVAL when the entry is not to be believed, -ENOMEM. */
static int read_entry(const struct digest_cache *cache, int fd, const struct digest_cache_key *key,
                      uint64_t *chunk_bytes, uint8_t **digests, uint32_t *count)
{
    uint8_t header[CACHE_ENTRY_HEADER];
    struct stat status;
    size_t length;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || !cache_is_own(&status) ||
        read_fully(fd, 0, header, sizeof header) != (ssize_t)sizeof header ||
        !cache_entry_check_header(header, key, chunk_bytes, count, &length) ||
        (uint64_t)status.st_size != length)
        return -EINVAL;
    uint8_t *entry = malloc(length);
    uint8_t *all = calloc((size_t)*count + 1, CACHE_ENTRY_DIGEST);
    int result = entry == NULL || all == NULL ? -ENOMEM : 0;
    if (result == 0) {
        /* The header again, from the copy that the digest is computed over. */
        bool good = read_fully(fd, 0, entry, length) == (ssize_t)length &&
                    memcmp(entry, header, sizeof header) == 0 &&
                    cache_entry_decode(entry, length, *count, &cache->secret, all);
        result = good ? 0 : -EINVAL;
    }
    free(entry);
    if (result == 0)
        *digests = all;
    else
        free(all);
    return result;
}

int digest_cache_load(struct digest_cache *cache, const struct digest_cache_key *key,
                      uint64_t *chunk_bytes, uint8_t **digests, uint32_t *count)
{
    char name[DIGEST_MAX_HEX];
    if (cache == NULL)
        return -ENOENT;
    entry_name(key, name);
    int fd = openat(cache->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ELOOP)
            unlinkat(cache->directory, name, 0);
        return -ENOENT;
    }
    int result = read_entry(cache, fd, key, chunk_bytes, digests, count);
    if (result == 0)
        futimens(fd, NULL); /* used just now: among the last to be removed */
    else if (result == -EINVAL)
        unlinkat(cache->directory, name, 0);
    close(fd);
    return result == -EINVAL ? -ENOENT : result;
}

/* ---- storing -----------------------------------------------------------------------------------
 */

/* Writes a temporary file and lets it take the entry's name. It need not be on the disk then: an
 * entry tells by its own digest whether it is whole. */
static int publish(struct digest_cache *cache, const char *name, const uint8_t *entry,
                   size_t length)
{
    char temporary[64];
    unsigned long long number;
    /* No process number: the directory may be shared with other machines. */
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return -EIO;
    snprintf(temporary, sizeof temporary, ".new-%016llx", number);
    int fd = openat(cache->directory, temporary,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int result = write_all(fd, entry, length);
    if (close(fd) != 0 && result == 0)
        result = -errno;
    if (result == 0 && renameat(cache->directory, temporary, cache->directory, name) != 0)
        result = -errno;
    if (result != 0)
        unlinkat(cache->directory, temporary, 0);
    return result;
}

/* So much has been added. Several may trim at a time. */
static void make_room(struct digest_cache *cache, long long length)
{
    bool bytes = atomic_fetch_sub(&cache->bytes_left, length) >= length;
    bool entries = atomic_fetch_sub(&cache->entries_left, 1) >= 1;
    if (bytes && entries)
        return;
    struct cache_room room = cache_directory_trim(cache->directory, cache->limit_bytes);
    atomic_store(&cache->bytes_left, room.bytes);
    atomic_store(&cache->entries_left, room.entries);
}

int digest_cache_store(struct digest_cache *cache, const struct digest_cache_key *key,
                       uint64_t chunk_bytes, const uint8_t *digests, uint32_t count,
                       struct unshard_error *error)
{
    char name[DIGEST_MAX_HEX];
    size_t length;
    if (cache == NULL)
        return 0;
    uint8_t *entry = cache_entry_encode(key, chunk_bytes, digests, count, &cache->secret, &length);
    if (entry == NULL)
        return error_set(error, "cache-error", EINVAL,
                         "%u chunk digests of %llu bytes each cannot be kept", count,
                         (unsigned long long)chunk_bytes);
    entry_name(key, name);
    int result = length > cache->limit_bytes ? -EFBIG : publish(cache, name, entry, length);
    free(entry);
    if (result != 0)
        return error_set(error, "cache-error", -result, "chunk digests cannot be kept: %s",
                         strerrordesc_np(-result));
    make_room(cache, (long long)length);
    return 0;
}
