/* SPDX-License-Identifier: MIT */
#include "tree/listing.h"

#include "base/parallel.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

/* Descriptors that are left for what looks at names meanwhile. */
#define OTHER_DESCRIPTORS 32U
#define SHARE_OF_DESCRIPTORS 8U

struct reading {
    const struct unshard_checkpoint *checkpoint;
    struct listing *listings;
    atomic_size_t room; /* for names of all of them */
    atomic_bool full;
};

uint32_t listings_at_once(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
        limit.rlim_cur < OTHER_DESCRIPTORS + SHARE_OF_DESCRIPTORS)
        return 1;
    rlim_t share = (limit.rlim_cur - OTHER_DESCRIPTORS) / SHARE_OF_DESCRIPTORS;
    return share < LISTINGS_AT_ONCE ? (uint32_t)share : LISTINGS_AT_ONCE;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(struct listing *listing, const char *name)
{
    if (listing->name_count == listing->capacity) {
        size_t capacity = listing->capacity == 0 ? 64 : listing->capacity * 2;
        char **grown = reallocarray(listing->names, capacity, sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        listing->names = grown;
        listing->capacity = capacity;
    }
    if ((listing->names[listing->name_count] = strdup(name)) == NULL)
        return -ENOMEM;
    listing->name_count++;
    return 0;
}

static bool take_room(struct reading *reading)
{
    size_t room = atomic_load(&reading->room);
    while (room > 0)
        if (atomic_compare_exchange_weak(&reading->room, &room, room - 1))
            return true;
    atomic_store(&reading->full, true);
    return false;
}

static int read_names(struct reading *reading, struct listing *listing)
{
    struct dirent *item;
    int result = 0;
    errno = 0;
    while (result == 0 && (item = readdir(listing->directory)) != NULL) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (!take_room(reading)) {
            listing->cut = true;
            break;
        }
        result = add_name(listing, item->d_name);
        errno = 0;
    }
    if (result == 0 && !listing->cut && errno != 0)
        result = -errno;
    if (listing->name_count > 0)
        qsort(listing->names, listing->name_count, sizeof *listing->names, compare_names);
    return result;
}

static int open_directory(const struct unshard_checkpoint *checkpoint, struct listing *listing)
{
    struct stat status;
    int path_fd = path_policy_resolve(checkpoint, listing->path, &status);
    if (path_fd < 0)
        return path_fd;
    int fd = path_policy_reopen(path_fd, O_DIRECTORY);
    close(path_fd);
    if (fd < 0)
        return fd;
    listing->directory = fdopendir(fd);
    if (listing->directory != NULL)
        return 0;
    int result = -errno;
    close(fd);
    return result;
}

static void list_number(void *context, uint32_t number)
{
    struct reading *reading = context;
    struct listing *listing = &reading->listings[number];
    listing->result = open_directory(reading->checkpoint, listing);
    if (listing->result == 0)
        listing->result = read_names(reading, listing);
}

bool listings_read(const struct unshard_checkpoint *checkpoint, struct listing *listings,
                   uint32_t count, size_t most)
{
    struct reading reading = {.checkpoint = checkpoint, .listings = listings};
    atomic_init(&reading.room, most);
    atomic_init(&reading.full, false);
    parallel_run(count, list_number, &reading);
    if (count == 1 || !atomic_load(&reading.full))
        return true;
    listings_free(listings, count);
    return false;
}

void listings_free(struct listing *listings, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct listing *listing = &listings[i];
        if (listing->directory != NULL)
            closedir(listing->directory);
        for (size_t k = 0; k < listing->name_count; k++)
            free(listing->names[k]);
        free(listing->names);
        *listing = (struct listing){.path = listing->path};
    }
}

/* ---- names -------------------------------------------------------------------------------------
 */

struct looking {
    const struct unshard_checkpoint *checkpoint;
    struct look *looks;
};

static int resolve(const struct unshard_checkpoint *checkpoint, const char *folder,
                   const char *name, struct stat *status)
{
    char path[PATH_MAX];
    const char *slash = folder[0] == '\0' ? "" : "/";
    if (snprintf(path, sizeof path, "%s%s%s", folder, slash, name) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = path_policy_resolve(checkpoint, path, status);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static void follow(const struct unshard_checkpoint *checkpoint, const char *folder,
                   struct look *look, int directory)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(directory, look->name, target, sizeof target);
    look->target = strndup(target, length < 0 ? 0 : (size_t)length);
    if (look->target == NULL)
        look->result = -ENOMEM;
    else
        look->target_result = resolve(checkpoint, folder, look->name, &look->target_status);
}

/* folder: the path of the open directory. */
static void look_in(const struct unshard_checkpoint *checkpoint, const char *folder, int directory,
                    struct look *look)
{
    look->target = NULL;
    look->result = 0;
    if (fstatat(directory, look->name, &look->status, AT_SYMLINK_NOFOLLOW) != 0)
        look->result = -errno;
    else if (S_ISLNK(look->status.st_mode))
        follow(checkpoint, folder, look, directory);
}

static void look_at_number(void *context, uint32_t number)
{
    const struct looking *looking = context;
    struct look *look = &looking->looks[number];
    look_in(looking->checkpoint, look->listing->path, dirfd(look->listing->directory), look);
}

void looks_take(const struct unshard_checkpoint *checkpoint, struct look *looks, uint32_t count)
{
    struct looking looking = {checkpoint, looks};
    parallel_run(count, look_at_number, &looking);
}

static uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t length)
{
    return XXH3_64bits_withSeed(bytes, length, seed);
}

static struct seen status_seen(uint64_t what, const struct stat *status)
{
    bool directory = S_ISDIR(status->st_mode);
    uint64_t identity[] = {status->st_dev, status->st_ino};
    uint64_t rest[] = {
        (uint64_t)status->st_mtim.tv_sec,
        (uint64_t)status->st_mtim.tv_nsec,
        status->st_mode,
        status->st_uid,
        status->st_gid,
        /* of files */
        status->st_dev,
        status->st_ino,
        (uint64_t)status->st_size,
        (uint64_t)status->st_ctim.tv_sec,
        (uint64_t)status->st_ctim.tv_nsec,
    };
    what ^= status->st_mode & S_IFMT;
    if (directory)
        what = hash_bytes(what, identity, sizeof identity);
    return (struct seen){.what = what,
                         .rest = hash_bytes(0, rest, (directory ? 5 : 10) * sizeof *rest)};
}

struct seen look_seen(const struct look *look)
{
    uint64_t what = hash_bytes((uint64_t)(int64_t)look->result, look->name, strlen(look->name));
    if (look->result == -ENOENT || look->result == -ENOTDIR)
        return (struct seen){0};
    if (look->target != NULL)
        what = hash_bytes(what ^ (uint64_t)(int64_t)look->target_result, look->target,
                          strlen(look->target));
    struct seen seen = {.what = what};
    if (look->result == 0 && look->target == NULL)
        seen = status_seen(what, &look->status);
    else if (look->result == 0 && look->target_result >= 0)
        seen = status_seen(what, &look->target_status);
    seen.what += seen.what == 0;
    return seen;
}

void look_take(const struct unshard_checkpoint *checkpoint, const char *directory,
               struct look *look)
{
    struct stat status;
    int fd = path_policy_resolve(checkpoint, directory, &status);
    look->target = NULL;
    look->result = fd;
    if (fd < 0)
        return;
    look_in(checkpoint, directory, fd, look);
    close(fd);
}

void look_outside(struct look *look)
{
    look->target = NULL;
    look->result =
        fstatat(AT_FDCWD, look->name, &look->status, AT_SYMLINK_NOFOLLOW) != 0 ? -errno : 0;
}
