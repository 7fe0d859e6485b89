/* SPDX-License-Identifier: MIT */
#include "digest/digest_cache_directory.h"

#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SUBDIRECTORY "chunk-digests"
/* A checkpoint may have tens of thousands of files, and each mount reads all of its entries. */
#define MOST_ENTRIES 100000U
/* Looking through all entries is dear: what is removed at a time makes room for so many more. */
#define SHARE_OF_SLACK 16U
#define LEAST_WITH_SLACK (UINT64_C(1) << 20)
#define ABANDONED_SECONDS 3600

/* ---- where it is -------------------------------------------------------------------------------
 */

static bool format_path(char out[PATH_MAX], const char *first, const char *second)
{
    return snprintf(out, PATH_MAX, "%s%s/" SUBDIRECTORY, first, second) < PATH_MAX;
}

/* The words of the environment count only when they are absolute, as the XDG specification asks. */
static bool find_path(char out[PATH_MAX])
{
    const char *own = getenv("UNSHARD_CACHE_DIR");
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own != NULL && own[0] != '\0')
        return own[0] == '/' && format_path(out, own, "");
    if (xdg != NULL && xdg[0] == '/')
        return format_path(out, xdg, "/unshard");
    if (home != NULL && home[0] == '/')
        return format_path(out, home, "/.cache/unshard");
    return geteuid() == 0 && format_path(out, "/var/cache/unshard", "");
}

/* Makes the directories on the way and the last one, for this user alone. */
static int make_path(char path[PATH_MAX])
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        int result = mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
        *slash = '/';
        if (result != 0 && result != -EROFS && result != -EACCES)
            return result;
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

bool cache_is_own(const struct stat *status)
{
    return status->st_uid == geteuid() && (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int cache_directory_open(struct unshard_error *error)
{
    char path[PATH_MAX];
    struct stat status;
    if (!find_path(path))
        return error_set(error, "no-cache-directory", ENOENT,
                         "no cache directory: set XDG_CACHE_HOME, HOME or UNSHARD_CACHE_DIR to an "
                         "absolute path");
    int result = make_path(path);
    if (result != 0)
        return error_set(error, "no-cache-directory", -result, "%s: cannot be made: %s", path,
                         strerrordesc_np(-result));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, "no-cache-directory", errno, "%s: %s", path,
                         strerrordesc_np(errno));
    if (fstat(fd, &status) == 0 && cache_is_own(&status))
        return fd;
    close(fd);
    return error_set(error, "no-cache-directory", EPERM,
                     "%s: not used, for it is not this user's or others may write to it: make it "
                     "yours, with mode 0700",
                     path);
}

int unshard_cache_check(struct unshard_error *error)
{
    int directory = cache_directory_open(error);
    if (directory < 0)
        return directory;
    int number = faccessat(directory, ".", W_OK | X_OK, AT_EACCESS) != 0 ? errno : 0;
    close(directory);
    return number != 0 ? error_set(error, "no-cache-directory", number,
                                   "the directory cannot be written: %s", strerrordesc_np(number))
                       : 0;
}

/* ---- what is in it -----------------------------------------------------------------------------
 */

struct kept {
    char name[NAME_MAX + 1];
    uint64_t bytes;
    struct timespec used;
};

struct kept_list {
    struct kept *items;
    size_t count, capacity;
    uint64_t bytes;
};

static int compare_age(const void *left, const void *right)
{
    const struct kept *a = left, *b = right;
    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    if (a->used.tv_nsec != b->used.tv_nsec)
        return a->used.tv_nsec < b->used.tv_nsec ? -1 : 1;
    return strcmp(a->name, b->name);
}

static bool keep(struct kept_list *list, const char *name, const struct stat *status)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        struct kept *grown = reallocarray(list->items, capacity, sizeof *grown);
        if (grown == NULL)
            return false;
        list->items = grown;
        list->capacity = capacity;
    }
    struct kept *item = &list->items[list->count++];
    snprintf(item->name, sizeof item->name, "%s", name);
    item->bytes = (uint64_t)status->st_size;
    item->used = status->st_mtim;
    list->bytes += item->bytes;
    return true;
}

/* Entries are told from other files by their names: 32 hexadecimal digits. */
static bool is_entry(const char *name)
{
    return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
}

static void look_at(int directory, const char *name, time_t now, struct kept_list *list)
{
    struct stat status;
    bool temporary = strncmp(name, ".new-", 5) == 0;
    if ((!temporary && !is_entry(name)) ||
        fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode))
        return;
    if (temporary ? now - status.st_mtime > ABANDONED_SECONDS : !keep(list, name, &status))
        unlinkat(directory, name, 0);
}

/* Removes the oldest ones while there are more than may be. */
static void remove_oldest(int directory, struct kept_list *list, uint64_t most_bytes, size_t most)
{
    size_t removed = 0;
    if (list->count > 0)
        qsort(list->items, list->count, sizeof *list->items, compare_age);
    while (removed < list->count && (list->bytes > most_bytes || list->count - removed > most)) {
        unlinkat(directory, list->items[removed].name, 0);
        list->bytes -= list->items[removed++].bytes;
    }
    list->count -= removed; /* what is left is not looked at any more */
}

struct cache_room cache_directory_trim(int directory, uint64_t limit_bytes)
{
    uint64_t slack_bytes = limit_bytes / SHARE_OF_SLACK;
    size_t slack = MOST_ENTRIES / SHARE_OF_SLACK;
    struct cache_room room = {0};
    struct kept_list list = {0};
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return room;
    }
    time_t now = time(NULL);
    for (const struct dirent *item; (item = readdir(stream)) != NULL;)
        look_at(directory, item->d_name, now, &list);
    closedir(stream);
    bool full = list.bytes > limit_bytes || list.count > MOST_ENTRIES;
    if (full && limit_bytes >= LEAST_WITH_SLACK)
        remove_oldest(directory, &list, limit_bytes - slack_bytes, MOST_ENTRIES - slack);
    else if (full)
        remove_oldest(directory, &list, limit_bytes, MOST_ENTRIES);
    uint64_t bytes_left = list.bytes < limit_bytes ? limit_bytes - list.bytes : 0;
    size_t left = MOST_ENTRIES - list.count;
    room.bytes = (int64_t)(bytes_left < slack_bytes ? bytes_left : slack_bytes);
    room.entries = (int64_t)(left < slack ? left : slack);
    free(list.items);
    return room;
}
