/* SPDX-License-Identifier: MIT
 *
 * An interest says: what happens to this name in this directory concerns this file, or all files of
 * this folder. A folder is the directory of a path, as text: what all its files have in common is
 * walked once.
 *
 * A directory is watched before a name is looked up in it, so that nothing that happens to the name
 * afterwards is missed. The kernel does not use a number of a watch again before 2^31 others.
 */
#include "store/notices.h"

#include "base/lazy_array.h"
#include "base/string_map.h"
#include "base/xxh3.h"
#include "tree/covered.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What concerns the names in a directory, the directory, and the files that have these names. */
#define NAMES ((uint32_t)(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO))
#define ITSELF ((uint32_t)(IN_DELETE_SELF | IN_MOVE_SELF))
#define CONTENT ((uint32_t)(IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE))
#define MOST_LINKS 40U
/* Of those of the user, who may have other programs. */
#define SHARE_OF_WATCHES 4U
#define USUAL_WATCHES 8192U
/* A file or folder has that many on average at most; what goes beyond is not told of. */
#define MOST_INTERESTS_EACH 8U
#define OTHER_INTERESTS 4096U
/* Reads of what was told in one go, of 16 KiB each: the kernel may have ever more to tell. */
#define MOST_READS 128U
#define FIRST_BUCKETS 64U
#define NONE UINT32_MAX
#define OF_FOLDER (UINT32_C(1) << 31)

struct interest {
    int directory; /* number of the watch */
    uint32_t name; /* its hash */
    uint32_t who;  /* a file, or OF_FOLDER and a folder */
    uint32_t next; /* in the same bucket, or NONE */
};

enum fate { STAYS, MOVED, GONE };

struct notices {
    const struct unshard_checkpoint *checkpoint;
    bool (*tells)(int directory);
    int inotify; /* -1: not open */
    uint32_t most_directories, directories;
    int newest;                /* number of the watch that was made last */
    uint8_t *fates;            /* enum fate of each watch, while what was told is taken */
    size_t fate_count;         /* numbers that it has room for */
    size_t room;               /* of the arrays of files and folders, which are lazy */
    const char **paths;        /* of each file; NULL: that of the checkpoint */
    uint32_t *folder_of;       /* of each file: number of its folder and one; 0: not added */
    bool *folder_elsewhere;    /* of each folder, while what was told is taken */
    char **folders;            /* their paths */
    struct string_map numbers; /* of folders by their paths */
    uint32_t folder_count, file_count;
    uint32_t file_end; /* files that have been added are below */
    struct interest *interests;
    uint32_t interest_count, interest_capacity;
    uint32_t *buckets, bucket_mask;
};

/* ---- interests ---------------------------------------------------------------------------------
 */

static uint64_t hash_name(int directory, const char *name, size_t length)
{
    return XXH3_64bits_withSeed(name, length, (XXH64_hash_t)directory);
}

static uint32_t *bucket_of(const struct notices *notices, int directory, uint32_t name)
{
    return &notices->buckets[(name ^ (uint32_t)directory * 0x9e3779b1U) & notices->bucket_mask];
}

static bool has_interest(const struct notices *notices, int directory, uint32_t name, uint32_t who)
{
    for (uint32_t i = *bucket_of(notices, directory, name); i != NONE;
         i = notices->interests[i].next) {
        const struct interest *interest = &notices->interests[i];
        if (interest->directory == directory && interest->name == name && interest->who == who)
            return true;
    }
    return false;
}

static void link_interest(struct notices *notices, uint32_t number)
{
    struct interest *interest = &notices->interests[number];
    uint32_t *bucket = bucket_of(notices, interest->directory, interest->name);
    interest->next = *bucket;
    *bucket = number;
}

static void empty_buckets(struct notices *notices)
{
    for (uint32_t i = 0; i <= notices->bucket_mask; i++)
        notices->buckets[i] = NONE;
}

/* As many buckets as there may be interests, where there is memory for them. */
static void add_buckets(struct notices *notices)
{
    uint32_t count = notices->bucket_mask + 1;
    while (count < notices->interest_capacity)
        count *= 2;
    uint32_t *grown = calloc(count, sizeof *grown);
    if (grown == NULL)
        return;
    free(notices->buckets);
    notices->buckets = grown;
    notices->bucket_mask = count - 1;
    empty_buckets(notices);
    for (uint32_t i = 0; i < notices->interest_count; i++)
        link_interest(notices, i);
}

static bool reserve_interest(struct notices *notices)
{
    if (notices->interest_count < notices->interest_capacity)
        return true;
    uint32_t capacity = notices->interest_capacity * 2 + 64;
    struct interest *grown = reallocarray(notices->interests, capacity, sizeof *grown);
    if (grown == NULL)
        return false;
    notices->interests = grown;
    notices->interest_capacity = capacity;
    add_buckets(notices);
    return true;
}

static uint32_t most_interests(const struct notices *notices)
{
    return MOST_INTERESTS_EACH * (notices->file_count + notices->folder_count) + OTHER_INTERESTS;
}

static bool add_interest(struct notices *notices, int directory, const char *text, uint32_t who)
{
    uint32_t name = (uint32_t)hash_name(directory, text, strlen(text));
    if (has_interest(notices, directory, name, who))
        return true;
    if (notices->interest_count == most_interests(notices) || !reserve_interest(notices))
        return false;
    notices->interests[notices->interest_count] = (struct interest){directory, name, who, NONE};
    link_interest(notices, notices->interest_count++);
    return true;
}

/* ---- directories -------------------------------------------------------------------------------
 */

static bool is_local(int directory)
{
    struct statfs status;
    if (fstatfs(directory, &status) != 0)
        return false;
    switch ((uint32_t)status.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case 0x2fc12fc1: /* ZFS */
    case 0xca451a4e: /* bcachefs */
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case EROFS_SUPER_MAGIC_V1:
    case SQUASHFS_MAGIC:
    case ISOFS_SUPER_MAGIC:
    case MSDOS_SUPER_MAGIC:
    case EXFAT_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

/* Makes room to note the fate of each watch up to this one. */
static bool reserve_fates(struct notices *notices, int watch)
{
    size_t needed = (size_t)watch + 1, count = notices->fate_count * 2 + 64;
    if (needed <= notices->fate_count)
        return true;
    count = count < needed ? needed : count;
    uint8_t *grown = realloc(notices->fates, count);
    if (grown == NULL)
        return false;
    memset(grown + notices->fate_count, STAYS, count - notices->fate_count);
    notices->fates = grown;
    notices->fate_count = count;
    return true;
}

/* The number of the watch of an open directory, with these events besides those that it has; -1:
 * there can be none. */
static int add_watch(struct notices *notices, int directory, uint32_t events)
{
    char path[64];
    if (notices->inotify < 0)
        notices->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", directory);
    int watch = inotify_add_watch(notices->inotify, path,
                                  events | IN_ONLYDIR | IN_EXCL_UNLINK | IN_MASK_ADD);
    if (watch <= notices->newest)
        return watch;
    notices->newest = watch;
    notices->directories++;
    if (notices->directories <= notices->most_directories && reserve_fates(notices, watch))
        return watch;
    inotify_rm_watch(notices->inotify, watch); /* which is told, and counts it out */
    return -1;
}

/* ---- the way to a file -------------------------------------------------------------------------
 */

/* A directory on the way. */
struct place {
    int fd; /* O_PATH; -1: there is none */
    bool borrowed;
    int watch; /* -1: not watched */
    uint32_t events;
    uint64_t device, mount;
};

struct walk {
    struct notices *notices;
    struct place at;
    uint32_t folder, file; /* whom names on the way concern, and the last one */
    unsigned links;
    bool told;
    bool names_only; /* files are not looked at */
    uint64_t device; /* of which it is known whether the kernel tells */
    bool device_tells;
    char rest[PATH_MAX]; /* what is left of the path */
};

static void leave(struct place *place)
{
    if (place->fd >= 0 && !place->borrowed)
        close(place->fd);
    *place = (struct place){.fd = -1, .watch = -1};
}

/* Takes fd over, which is one of a directory. */
static void enter(struct walk *walk, int fd, const struct statx *status)
{
    leave(&walk->at);
    walk->at =
        (struct place){.fd = fd,
                       .watch = -1,
                       .device = (uint64_t)status->stx_dev_major << 32 | status->stx_dev_minor,
                       .mount = status->stx_mnt_id};
}

static bool look_up(const struct walk *walk, int directory, const char *name, int *fd,
                    struct statx *status)
{
    *fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return false;
    int result = covered_replace(walk->notices->checkpoint, fd);
    if (result != 0) {
        errno = -result;
        return false;
    }
    if (statx(*fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_NLINK | STATX_MNT_ID, status) == 0)
        return true;
    close(*fd);
    errno = EIO;
    return false;
}

static bool enter_name(struct walk *walk, int directory, const char *name)
{
    struct statx status;
    int fd;
    if (!look_up(walk, directory, name, &fd, &status))
        return false;
    enter(walk, fd, &status);
    return true;
}

static bool kernel_tells(struct walk *walk)
{
    if (walk->device != walk->at.device) {
        walk->device = walk->at.device;
        walk->device_tells = walk->notices->tells(walk->at.fd);
    }
    return walk->device_tells;
}

static bool watch_place(struct walk *walk, uint32_t events)
{
    struct place *at = &walk->at;
    if (at->watch >= 0 && (events & ~at->events) == 0)
        return true;
    if (!kernel_tells(walk))
        return false;
    at->watch = add_watch(walk->notices, at->fd, events);
    at->events |= events;
    return at->watch >= 0;
}

/* The next name of the path, moved out of `rest`; false: there is none. */
static bool take_name(struct walk *walk, char name[NAME_MAX + 1])
{
    char *start = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(start, "/");
    if (length == 0 || length > NAME_MAX)
        return false;
    memcpy(name, start, length);
    name[length] = '\0';
    start += length;
    start += strspn(start, "/");
    memmove(walk->rest, start, strlen(start) + 1);
    return true;
}

/* Puts the target of an open symlink before the rest of the path. */
static bool follow_link(struct walk *walk, int link)
{
    char target[PATH_MAX], rest[PATH_MAX];
    ssize_t length = readlinkat(link, "", target, sizeof target - 1);
    if (length < 0 || ++walk->links > MOST_LINKS)
        return false;
    target[length] = '\0';
    int written = snprintf(rest, sizeof rest, "%s/%s", target, walk->rest);
    if (written < 0 || (size_t)written >= sizeof rest)
        return false;
    if (target[0] == '/' && !enter_name(walk, AT_FDCWD, "/"))
        return false;
    memcpy(walk->rest, rest, (size_t)written + 1);
    return true;
}

/* Whatever happens to what the last name leads to happens by this name. */
static bool has_one_name(const struct walk *walk, const struct statx *status)
{
    return S_ISDIR(status->stx_mode) ||
           (status->stx_nlink == 1 && status->stx_mnt_id == walk->at.mount);
}

/* Has a name watched, and goes where it leads. False: the way ends here; then walk->told says
 * whether that is told of. */
static bool pass(struct walk *walk, const char *name, bool last)
{
    struct statx status;
    int fd;
    uint32_t who = last ? walk->file : walk->folder;
    walk->told = false;
    if (!watch_place(walk, NAMES | ITSELF | ((who & OF_FOLDER) == 0 ? CONTENT : 0)) ||
        !add_interest(walk->notices, walk->at.watch, name, who) ||
        (walk->names_only && (who & OF_FOLDER) == 0))
        return false;
    if (!look_up(walk, walk->at.fd, name, &fd, &status)) {
        walk->told = errno == ENOENT;
        return false;
    }
    if (S_ISLNK(status.stx_mode)) {
        bool followed = follow_link(walk, fd);
        close(fd);
        return followed;
    }
    walk->told = has_one_name(walk, &status);
    if (!S_ISDIR(status.stx_mode)) {
        close(fd);
        return false;
    }
    enter(walk, fd, &status);
    return true;
}

/* Goes along `rest`. True: it leads to a directory, where the walk is then. */
static bool go(struct walk *walk)
{
    char name[NAME_MAX + 1];
    while (take_name(walk, name)) {
        bool last = walk->rest[0] == '\0', there = true;
        if (strcmp(name, "..") == 0)
            there = enter_name(walk, walk->at.fd, name);
        else if (strcmp(name, ".") != 0)
            there = pass(walk, name, last);
        if (!there)
            return false;
    }
    return true;
}

static const char *path_of(const struct notices *notices, uint32_t file)
{
    const char *path = notices->paths[file];
    return path != NULL ? path : notices->checkpoint->files[file].path;
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

/* Goes to the directory of a path, if it is there, and has it watched; walk->told: all of that is
 * told of. */
static bool go_to_folder(struct walk *walk, const char *path)
{
    size_t length = folder_length(path);
    walk->links = 0;
    walk->told = false;
    if (length >= sizeof walk->rest || !enter_name(walk, walk->notices->checkpoint->source_fd, "."))
        return false;
    memcpy(walk->rest, path, length);
    walk->rest[length] = '\0';
    walk->told = true;
    walk->file = walk->folder; /* the last name of the way to it concerns all of its files, too */
    if (!go(walk))
        return false;
    walk->told = watch_place(walk, NAMES | ITSELF | CONTENT);
    return true;
}

/* The walk stands in the folder of the file, and goes on from there. */
static bool watch_file(struct walk *walk, uint32_t file)
{
    struct walk on = *walk;
    const char *path = path_of(walk->notices, file);
    const char *name = path + folder_length(path);
    size_t length = strlen(name);
    if (length >= sizeof on.rest)
        return false;
    memcpy(on.rest, name, length + 1);
    on.file = file;
    on.at.borrowed = true;
    on.links = 0;
    go(&on);
    leave(&on.at);
    return on.told;
}

static void watch_files(struct notices *notices, const uint32_t *files, uint32_t count,
                        bool names_only, bool *told)
{
    struct walk walk = {
        .notices = notices, .at = {.fd = -1}, .device = UINT64_MAX, .names_only = names_only};
    uint32_t folder = NONE;
    bool there = false, folder_told = false;
    for (uint32_t i = 0; i < count; i++) {
        if (notices->folder_of[files[i]] - 1 != folder) {
            folder = notices->folder_of[files[i]] - 1;
            walk.folder = OF_FOLDER | folder;
            there = go_to_folder(&walk, path_of(notices, files[i]));
            folder_told = walk.told;
        }
        bool answer = folder_told && (!there || watch_file(&walk, files[i]));
        if (told != NULL)
            told[i] = answer;
    }
    leave(&walk.at);
}

void notices_watch(struct notices *notices, const uint32_t *files, uint32_t count, bool *told)
{
    watch_files(notices, files, count, false, told);
}

void notices_watch_names(struct notices *notices, const uint32_t *files, uint32_t count)
{
    watch_files(notices, files, count, true, NULL);
}

/* ---- what was told -----------------------------------------------------------------------------
 */

struct telling {
    struct notices *notices;
    void (*told)(void *context, uint32_t file, bool elsewhere);
    void *context;
    bool lost, fates, folders; /* some watch has a fate, some folder may be elsewhere */
};

static void tell(struct telling *telling, uint32_t who, bool elsewhere)
{
    if ((who & OF_FOLDER) == 0) {
        telling->told(telling->context, who, elsewhere);
    } else if (elsewhere) {
        telling->notices->folder_elsewhere[who & ~OF_FOLDER] = true;
        telling->folders = true;
    }
}

static void tell_name(struct telling *telling, const struct inotify_event *event)
{
    const struct notices *notices = telling->notices;
    uint32_t name = (uint32_t)hash_name(event->wd, event->name, strlen(event->name));
    for (uint32_t i = *bucket_of(notices, event->wd, name); i != NONE;
         i = notices->interests[i].next)
        if (notices->interests[i].directory == event->wd && notices->interests[i].name == name)
            tell(telling, notices->interests[i].who, (event->mask & NAMES) != 0);
}

static void tell_event(struct telling *telling, const struct inotify_event *event)
{
    struct notices *notices = telling->notices;
    telling->lost = telling->lost || (event->mask & IN_Q_OVERFLOW) != 0;
    if (event->wd < 0)
        return;
    if ((event->mask & (ITSELF | IN_UNMOUNT | IN_IGNORED)) == 0) {
        if (event->len > 0)
            tell_name(telling, event);
        return;
    }
    if ((event->mask & IN_IGNORED) != 0)
        notices->directories--;
    if ((size_t)event->wd >= notices->fate_count)
        return; /* nobody is concerned: it could not be kept */
    if ((event->mask & IN_IGNORED) != 0)
        notices->fates[event->wd] = GONE;
    else if (notices->fates[event->wd] == STAYS)
        notices->fates[event->wd] = MOVED;
    telling->fates = true;
}

/* False: there is nothing more to read. */
static bool read_some(struct telling *telling)
{
    _Alignas(struct inotify_event) char buffer[16384];
    ssize_t length = read(telling->notices->inotify, buffer, sizeof buffer);
    if (length <= 0)
        return length < 0 && errno == EINTR;
    for (const char *at = buffer; at < buffer + length;) {
        const struct inotify_event *event = (const struct inotify_event *)(const void *)at;
        tell_event(telling, event);
        at += sizeof *event + event->len;
    }
    return true;
}

/* Whom directories concern that have been moved or are gone; the latter are forgotten. */
static void tell_fates(struct telling *telling)
{
    struct notices *notices = telling->notices;
    uint32_t kept = 0;
    empty_buckets(notices);
    for (uint32_t i = 0; i < notices->interest_count; i++) {
        struct interest interest = notices->interests[i];
        uint8_t fate = notices->fates[interest.directory];
        if (fate != STAYS)
            tell(telling, interest.who, true);
        if (fate == GONE)
            continue;
        notices->interests[kept] = interest;
        link_interest(notices, kept++);
    }
    notices->interest_count = kept;
    memset(notices->fates, STAYS, notices->fate_count);
}

static void tell_folders(struct telling *telling)
{
    struct notices *notices = telling->notices;
    for (uint32_t i = 0; i < notices->file_end; i++)
        if (notices->folder_of[i] != 0 && notices->folder_elsewhere[notices->folder_of[i] - 1])
            telling->told(telling->context, i, true);
    memset(notices->folder_elsewhere, 0, notices->folder_count * sizeof(bool));
}

bool notices_take(struct notices *notices,
                  void (*told)(void *context, uint32_t file, bool elsewhere), void *context)
{
    struct telling telling = {.notices = notices, .told = told, .context = context};
    if (notices->inotify < 0)
        return true;
    for (unsigned reads = 0; reads < MOST_READS && read_some(&telling);)
        reads++;
    if (telling.fates)
        tell_fates(&telling);
    if (telling.folders)
        tell_folders(&telling);
    if (telling.lost)
        notices_forget(notices);
    return !telling.lost;
}

void notices_forget(struct notices *notices)
{
    if (notices->inotify >= 0)
        close(notices->inotify);
    notices->inotify = notices->newest = -1;
    notices->directories = notices->interest_count = 0;
    empty_buckets(notices);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static uint32_t share_of_watches(void)
{
    char line[32] = "";
    unsigned long most = 0;
    FILE *file = fopen("/proc/sys/fs/inotify/max_user_watches", "re");
    if (file != NULL) {
        if (fgets(line, sizeof line, file) != NULL)
            most = strtoul(line, NULL, 10);
        fclose(file);
    }
    if (most == 0 || most > UINT32_MAX)
        most = USUAL_WATCHES;
    return (uint32_t)most / SHARE_OF_WATCHES;
}

/* The number of the folder of a path. 0 or -ENOMEM. */
static int find_folder(struct notices *notices, const char *path, uint32_t *number)
{
    size_t length = folder_length(path);
    if (string_map_find(&notices->numbers, path, length, number))
        return 0;
    char *folder = strndup(path, length);
    int result = folder == NULL ? -ENOMEM
                                : string_map_add(&notices->numbers, folder, length,
                                                 notices->folder_count, number);
    if (result < 0) {
        free(folder);
        return result;
    }
    notices->folders[notices->folder_count++] = folder;
    return 0;
}

int notices_add(struct notices *notices, uint32_t file)
{
    uint32_t folder;
    if (notices->folder_of[file] != 0)
        return 0;
    /* Folders that nobody needs any more keep their numbers. */
    int result = notices->folder_count < notices->room
                     ? find_folder(notices, path_of(notices, file), &folder)
                     : -ENOMEM;
    if (result != 0)
        return result;
    notices->folder_of[file] = folder + 1;
    notices->file_count++;
    notices->file_end = file >= notices->file_end ? file + 1 : notices->file_end;
    return 0;
}

int notices_rename(struct notices *notices, uint32_t file, const char *path)
{
    notices_remove(notices, file);
    notices->paths[file] = path;
    return notices_add(notices, file);
}

void notices_remove(struct notices *notices, uint32_t file)
{
    notices->paths[file] = NULL;
    notices->file_count -= notices->folder_of[file] != 0;
    notices->folder_of[file] = 0;
}

static int allocate(struct notices *notices)
{
    notices->room = (size_t)checkpoint_file_room(notices->checkpoint) + 1;
    notices->folder_of = lazy_array_new(notices->room, sizeof *notices->folder_of);
    notices->paths = lazy_array_new(notices->room, sizeof *notices->paths);
    notices->folder_elsewhere = lazy_array_new(notices->room, sizeof(bool));
    notices->folders = lazy_array_new(notices->room, sizeof *notices->folders);
    notices->bucket_mask = FIRST_BUCKETS - 1;
    notices->buckets = calloc(FIRST_BUCKETS, sizeof *notices->buckets);
    if (notices->folder_of == NULL || notices->paths == NULL || notices->folder_elsewhere == NULL ||
        notices->folders == NULL || notices->buckets == NULL)
        return -ENOMEM;
    empty_buckets(notices);
    return 0;
}

int notices_create(const struct unshard_checkpoint *checkpoint,
                   const struct notices_options *options, struct notices **out)
{
    struct notices *notices = calloc(1, sizeof *notices);
    if (notices == NULL)
        return -ENOMEM;
    notices->checkpoint = checkpoint;
    notices->inotify = notices->newest = -1;
    notices->tells = options->tells != NULL ? options->tells : is_local;
    notices->most_directories =
        options->most_directories != 0 ? options->most_directories : share_of_watches();
    if (allocate(notices) != 0) {
        notices_free(notices);
        return -ENOMEM;
    }
    *out = notices;
    return 0;
}

void notices_free(struct notices *notices)
{
    if (notices == NULL)
        return;
    if (notices->inotify >= 0)
        close(notices->inotify);
    free(notices->fates);
    for (uint32_t i = 0; i < notices->folder_count; i++)
        free(notices->folders[i]);
    string_map_free(&notices->numbers);
    lazy_array_free(notices->folder_of, notices->room, sizeof *notices->folder_of);
    lazy_array_free(notices->paths, notices->room, sizeof *notices->paths);
    lazy_array_free(notices->folder_elsewhere, notices->room, sizeof(bool));
    lazy_array_free(notices->folders, notices->room, sizeof *notices->folders);
    free(notices->interests);
    free(notices->buckets);
    free(notices);
}
