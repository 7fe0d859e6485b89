/* SPDX-License-Identifier: MIT
 *
 * A place is the right to have one handle open: there are `most`. It is taken before the file is
 * opened, and given back when the handle has been closed.
 *
 *   place      among slot->handles   list of idle ones   who owns it
 *   opening    no                    no                  the thread that opens, without the lock
 *   pinned     yes                   no                  those who have pinned it
 *   idle       yes                   yes                 whoever needs a place closes the oldest
 *   replaced   no                    no                  those who have pinned it; the last closes
 * it
 *
 * No lock is held while a file is opened or closed.
 */
#include "store/open_files.h"

#include "base/error.h"
#include "base/lazy_array.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Each open file takes two: through the page cache and past it. */
#define DESCRIPTORS_EACH 2U
/* What else the process has open: connection, pipes, the log, what discovery and the cache of
 * digests open for a moment. */
#define OTHER_DESCRIPTORS 128U
#define LEAST_OPEN 4U
/* More does not make anything faster, and the kernel has memory for each. */
#define MOST_OPEN 1024U
/* When descriptors are short in the whole system, how often to look whether they still are. */
#define SHORTAGE_NS 50000000

struct slot {
    struct source_identity identity;
    struct open_file *handles; /* of that content */
    char **names;              /* others than the checkpoint's, malloc'd; in the order of adding */
    uint32_t name_count;
    uint32_t first; /* of all names, the checkpoint's being 0, that by which it is opened */
    bool was_direct;
};

struct open_files {
    const struct unshard_checkpoint *checkpoint;
    pthread_mutex_t lock;   /* of everything below */
    pthread_cond_t changed; /* a place was given back, or a file became idle; or cancelled */
    struct slot *slots;     /* one per source file; lazy */
    size_t room;            /* of slots */
    size_t most, count;     /* places, and those taken */
    struct open_file *oldest, *newest; /* idle ones */
    bool cancelled;
};

size_t open_files_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return LEAST_OPEN;
    if (limit.rlim_cur >= OTHER_DESCRIPTORS + DESCRIPTORS_EACH * MOST_OPEN)
        return MOST_OPEN;
    if (limit.rlim_cur < OTHER_DESCRIPTORS + DESCRIPTORS_EACH * LEAST_OPEN)
        return LEAST_OPEN;
    return (limit.rlim_cur - OTHER_DESCRIPTORS) / DESCRIPTORS_EACH;
}

static struct source_identity identity_seen(const struct source_file *file)
{
    return (struct source_identity){file->device, file->inode, file->size, file->mtime_ns,
                                    file->ctime_ns};
}

int open_files_create(const struct unshard_checkpoint *checkpoint, size_t most,
                      struct open_files **out)
{
    pthread_condattr_t monotonic;
    struct open_files *files = calloc(1, sizeof *files);
    if (files == NULL)
        return -ENOMEM;
    files->checkpoint = checkpoint;
    files->most = most;
    files->room = (size_t)checkpoint_file_room(checkpoint) + 1;
    files->slots = lazy_array_new(files->room, sizeof *files->slots);
    if (files->slots == NULL) {
        free(files);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        files->slots[i].identity = identity_seen(&checkpoint->files[i]);
    pthread_mutex_init(&files->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&files->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = files;
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* ---- one file ----------------------------------------------------------------------------------
 */

static void close_file(struct open_file *file)
{
    if (file == NULL)
        return;
    if (file->buffered >= 0)
        close(file->buffered);
    if (file->direct >= 0)
        close(file->direct);
    free(file);
}

static int fail_open(const char *path, int number, struct unshard_error *error)
{
    if (number == ENOENT)
        return error_set(error, "missing", number, "%s: the file is gone", path);
    return error_set(error, "read-error", number, "%s: cannot open: %s", path,
                     path_policy_reason(-number));
}

static int fail_changed(const char *path, const char *what, uint64_t expected, uint64_t actual,
                        struct unshard_error *error)
{
    return error_set(error, "changed", ESTALE,
                     "%s: changed since it was mounted: %s was %llu and is %llu", path, what,
                     (unsigned long long)expected, (unsigned long long)actual);
}

int open_file_truncated(const char *path, uint64_t end, uint64_t needed,
                        struct unshard_error *error)
{
    return error_set_at(error, "truncated", EIO, end,
                        "%s: ends at byte %llu, %llu bytes are missing from there", path,
                        (unsigned long long)end, (unsigned long long)(needed - end));
}

static int compare_identity(struct source_identity was, struct source_identity now,
                            const char *path, struct unshard_error *error)
{
    if (source_same_content(&was, &now))
        return 0;
    if (now.inode != was.inode)
        return fail_changed(path, "inode", was.inode, now.inode, error);
    if (now.size < was.size)
        return open_file_truncated(path, now.size, was.size, error);
    if (now.size != was.size)
        return fail_changed(path, "size", was.size, now.size, error);
    return fail_changed(path, "mtime (ns)", (uint64_t)was.mtime_ns, (uint64_t)now.mtime_ns, error);
}

static int read_identity(int fd, const char *path, struct source_identity *out,
                         struct unshard_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_set(error, "read-error", errno, "%s: cannot stat: %s", path,
                         strerrordesc_np(errno));
    *out = source_identity_of(&status);
    return 0;
}

int open_file_check(const struct open_file *file, const char *path, struct unshard_error *error)
{
    struct source_identity now;
    int result = read_identity(file->buffered, path, &now, error);
    return result == 0 ? compare_identity(file->identity, now, path, error) : result;
}

static bool is_shortage(int negative_errno)
{
    return negative_errno == -EMFILE || negative_errno == -ENFILE;
}

static bool is_in_memory(int fd)
{
    struct statfs status;
    return fstatfs(fd, &status) == 0 &&
           (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

/* Opens both descriptors of what is at the path now. -EMFILE and -ENFILE come without an error. */
static int open_file(const struct unshard_checkpoint *checkpoint, uint32_t number, const char *path,
                     struct open_file **out, struct unshard_error *error)
{
    struct open_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        error_no_memory(error);
        return -ENOMEM;
    }
    file->number = number;
    file->direct = -1;
    file->buffered = checkpoint_open_path_now(checkpoint, path, 0);
    int result = file->buffered < 0 ? file->buffered : 0;
    if (result == 0)
        file->direct = checkpoint_open_path_now(checkpoint, path, O_DIRECT);
    if (is_shortage(file->direct))
        result = file->direct;
    if (result < 0 && !is_shortage(result))
        result = fail_open(path, -result, error);
    if (result == 0)
        result = read_identity(file->buffered, path, &file->identity, error);
    if (result != 0) {
        close_file(file);
        return result;
    }
    file->in_memory = is_in_memory(file->buffered);
    *out = file;
    return 0;
}

/* ---- names; the caller holds the lock ----------------------------------------------------------
 */

static const char *name_at(const struct open_files *files, uint32_t number, uint32_t place)
{
    const struct slot *slot = &files->slots[number];
    if (place > slot->name_count)
        return NULL;
    uint32_t which = (slot->first + place) % (slot->name_count + 1);
    return which == 0 ? files->checkpoint->files[number].path : slot->names[which - 1];
}

static void prefer(struct slot *slot, uint32_t place)
{
    slot->first = (slot->first + place) % (slot->name_count + 1);
}

static bool has_name(const struct open_files *files, uint32_t number, const char *path)
{
    const char *name;
    for (uint32_t i = 0; (name = name_at(files, number, i)) != NULL; i++)
        if (strcmp(name, path) == 0)
            return true;
    return false;
}

static void forget_names(struct slot *slot)
{
    for (uint32_t i = 0; i < slot->name_count; i++)
        free(slot->names[i]);
    free(slot->names);
    slot->names = NULL;
    slot->name_count = slot->first = 0;
}

/* ---- the list of idle ones; the caller holds the lock ------------------------------------------
 */

static void list_idle(struct open_files *files, struct open_file *file)
{
    file->idle_ns = now_ns();
    file->older = files->newest;
    file->newer = NULL;
    *(files->newest != NULL ? &files->newest->newer : &files->oldest) = file;
    files->newest = file;
}

static void unlist_idle(struct open_files *files, struct open_file *file)
{
    *(file->older != NULL ? &file->older->newer : &files->oldest) = file->newer;
    *(file->newer != NULL ? &file->newer->older : &files->newest) = file->older;
    file->older = file->newer = NULL;
}

/* ---- the handles of a file; the caller holds the lock ------------------------------------------
 */

static void add_handle(struct open_files *files, struct open_file *file)
{
    struct slot *slot = &files->slots[file->number];
    file->next = slot->handles;
    slot->handles = file;
    slot->was_direct = file->direct >= 0;
}

static void remove_handle(struct open_files *files, struct open_file *file)
{
    struct open_file **link = &files->slots[file->number].handles;
    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
}

static bool is_current(const struct open_files *files, const struct open_file *file)
{
    const struct open_file *handle = files->slots[file->number].handles;
    while (handle != NULL && handle != file)
        handle = handle->next;
    return handle != NULL;
}

/* The idle handle that was left at offset, or else the one that has been idle for longest; NULL:
 * none is idle. */
static struct open_file *find_idle(const struct slot *slot, uint64_t offset)
{
    struct open_file *found = NULL;
    for (struct open_file *file = slot->handles; file != NULL; file = file->next)
        if (file->pins == 0) {
            if (file->position == offset)
                return file;
            if (found == NULL || file->idle_ns < found->idle_ns)
                found = file;
        }
    return found;
}

/* The handle that the fewest have pinned; NULL: none is open. */
static struct open_file *find_shared(const struct slot *slot)
{
    struct open_file *found = slot->handles;
    for (struct open_file *file = found; file != NULL; file = file->next)
        if (file->pins < found->pins)
            found = file;
    return found;
}

/* The oldest idle handle, for the caller to close; it has its place. NULL: none is idle. */
static struct open_file *take_idle(struct open_files *files)
{
    struct open_file *file = files->oldest;
    if (file == NULL)
        return NULL;
    unlist_idle(files, file);
    remove_handle(files, file);
    return file;
}

static void give_place_back(struct open_files *files)
{
    files->count--;
    pthread_cond_broadcast(&files->changed);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* Caller holds the lock, which is released meanwhile. 0, or -ECANCELED. */
static int take_place(struct open_files *files)
{
    struct open_file *idle = NULL;
    while (files->count >= files->most && !files->cancelled && (idle = take_idle(files)) == NULL)
        pthread_cond_wait(&files->changed, &files->lock);
    if (idle != NULL) { /* its place goes on to the caller */
        pthread_mutex_unlock(&files->lock);
        close_file(idle);
        pthread_mutex_lock(&files->lock);
        return 0;
    }
    if (files->count >= files->most)
        return -ECANCELED;
    files->count++;
    return 0;
}

/* A handle may be opened without waiting. Caller holds the lock. */
static bool place_is_free(const struct open_files *files)
{
    return files->count < files->most || files->oldest != NULL;
}

/* Others have all descriptors. What is open here without need is given up; then it takes time.
 * Caller holds the lock, which is released meanwhile. */
static void wait_out_shortage(struct open_files *files)
{
    struct timespec until;
    struct open_file *idle = take_idle(files);
    if (idle != NULL) {
        pthread_mutex_unlock(&files->lock);
        close_file(idle);
        pthread_mutex_lock(&files->lock);
        give_place_back(files);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SHORTAGE_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&files->changed, &files->lock, &until);
}

/* Opens what is at the path, in a place of its own. Caller holds the lock, which is released
 * meanwhile. */
static int open_in_place(struct open_files *files, uint32_t number, const char *path,
                         struct open_file **out, struct unshard_error *error)
{
    for (;;) {
        int result = take_place(files);
        if (result == 0) {
            pthread_mutex_unlock(&files->lock);
            result = open_file(files->checkpoint, number, path, out, error);
            pthread_mutex_lock(&files->lock);
            if (result == 0)
                return 0;
            give_place_back(files);
        }
        if (is_shortage(result) && !files->cancelled && files->slots[number].handles == NULL) {
            wait_out_shortage(files);
            continue;
        }
        if (is_shortage(result) || result == -ECANCELED)
            error_set(error, "cancelled", ECANCELED, "%s: not opened: it is being stopped", path);
        return result;
    }
}

/* Closes a file that nobody has. Caller holds the lock, which is released meanwhile. */
static void close_in_place(struct open_files *files, struct open_file *file)
{
    pthread_mutex_unlock(&files->lock);
    close_file(file);
    pthread_mutex_lock(&files->lock);
    give_place_back(files);
}

/* One more handle of the slot's content, by that name. Caller holds the lock, which is released
 * meanwhile. */
static int open_by_name(struct open_files *files, uint32_t number, const char *path,
                        struct open_file **out, struct unshard_error *error)
{
    int result = open_in_place(files, number, path, out, error);
    if (result == 0)
        result = compare_identity(files->slots[number].identity, (*out)->identity, path, error);
    else
        *out = NULL;
    if (result != 0 && *out != NULL)
        close_in_place(files, *out);
    return result;
}

/* Opens one more handle, idle; of a file with several names by the first that leads to it. Caller
 * holds the lock, which is released meanwhile. */
static int open_handle(struct open_files *files, uint32_t number, struct open_file **out,
                       struct unshard_error *error)
{
    struct unshard_error of_others;
    uint32_t place = 0;
    const char *path = name_at(files, number, place);
    int result = open_by_name(files, number, path, out, error);
    for (int other = result; other != 0 && !files->cancelled && !is_shortage(other);) {
        path = name_at(files, number, ++place);
        if (path == NULL)
            return result;
        other = open_by_name(files, number, path, out, &of_others);
        if (other == 0) {
            prefer(&files->slots[number], place);
            result = 0;
        }
    }
    if (result != 0)
        return result;
    add_handle(files, *out);
    list_idle(files, *out);
    return 0;
}

int open_files_pin(struct open_files *files, uint32_t number, uint64_t offset,
                   struct open_file **out, struct unshard_error *error)
{
    struct slot *slot = &files->slots[number];
    struct open_file *file;
    int result = 0;
    pthread_mutex_lock(&files->lock);
    file = find_idle(slot, offset);
    if (file == NULL && slot->handles != NULL && !place_is_free(files))
        file = find_shared(slot);
    if (file == NULL)
        result = open_handle(files, number, &file, error);
    if (result != 0 && (file = find_shared(slot)) != NULL) /* what is open can be read on */
        result = 0;
    if (result == 0) {
        if (file->pins++ == 0)
            unlist_idle(files, file);
        *out = file;
    }
    pthread_mutex_unlock(&files->lock);
    return result;
}

void open_files_unpin(struct open_files *files, struct open_file *file, uint64_t end)
{
    pthread_mutex_lock(&files->lock);
    file->position = end;
    if (--file->pins == 0) {
        if (is_current(files, file)) {
            list_idle(files, file);
            pthread_cond_broadcast(&files->changed);
        } else {
            close_in_place(files, file);
        }
    }
    pthread_mutex_unlock(&files->lock);
}

/* Takes the handles of the old content away: a list of those that nobody has pinned. */
static struct open_file *retire_handles(struct open_files *files, struct slot *slot)
{
    struct open_file *unused = NULL;
    for (struct open_file *file = slot->handles, *next; file != NULL; file = next) {
        next = file->next;
        file->next = NULL;
        if (file->pins == 0) {
            unlist_idle(files, file);
            file->next = unused;
            unused = file;
        }
    }
    slot->handles = NULL;
    return unused;
}

int open_files_renew(struct open_files *files, uint32_t number, struct unshard_error *error)
{
    struct slot *slot = &files->slots[number];
    struct open_file *file;
    pthread_mutex_lock(&files->lock);
    int result = open_in_place(files, number, name_at(files, number, 0), &file, error);
    if (result == 0) {
        struct open_file *old = retire_handles(files, slot);
        slot->identity = file->identity;
        add_handle(files, file);
        list_idle(files, file);
        pthread_cond_broadcast(&files->changed);
        for (struct open_file *next; old != NULL; old = next) {
            next = old->next;
            close_in_place(files, old);
        }
    }
    pthread_mutex_unlock(&files->lock);
    return result;
}

void open_files_add(struct open_files *files, uint32_t number)
{
    pthread_mutex_lock(&files->lock);
    files->slots[number] =
        (struct slot){.identity = identity_seen(&files->checkpoint->files[number])};
    pthread_mutex_unlock(&files->lock);
}

void open_files_remove(struct open_files *files, uint32_t number)
{
    pthread_mutex_lock(&files->lock);
    struct open_file *old = retire_handles(files, &files->slots[number]);
    forget_names(&files->slots[number]);
    for (struct open_file *next; old != NULL; old = next) {
        next = old->next;
        close_in_place(files, old);
    }
    pthread_mutex_unlock(&files->lock);
}

void open_files_add_name(struct open_files *files, uint32_t number, const char *path)
{
    pthread_mutex_lock(&files->lock);
    struct slot *slot = &files->slots[number];
    bool takes = slot->name_count < MOST_NAMES && !has_name(files, number, path);
    char *name = takes ? strdup(path) : NULL;
    char **grown =
        name != NULL ? reallocarray(slot->names, slot->name_count + 1, sizeof(char *)) : NULL;
    if (grown != NULL) {
        slot->names = grown;
        slot->names[slot->name_count++] = name;
    } else {
        free(name);
    }
    pthread_mutex_unlock(&files->lock);
}

const char *open_files_name(struct open_files *files, uint32_t number, uint32_t place)
{
    pthread_mutex_lock(&files->lock);
    const char *name = name_at(files, number, place);
    pthread_mutex_unlock(&files->lock);
    return name;
}

void open_files_prefer(struct open_files *files, uint32_t number, uint32_t place)
{
    pthread_mutex_lock(&files->lock);
    prefer(&files->slots[number], place);
    pthread_mutex_unlock(&files->lock);
}

void open_files_close_idle(struct open_files *files, uint64_t before_ns)
{
    pthread_mutex_lock(&files->lock);
    for (struct open_file *file = files->oldest, *next; file != NULL && file->idle_ns < before_ns;
         file = next) {
        next = file->newer;
        if (files->slots[file->number].handles->next == NULL)
            continue; /* the only one */
        unlist_idle(files, file);
        remove_handle(files, file);
        close_in_place(files, file); /* which lets others at the list */
        next = files->oldest;
    }
    pthread_mutex_unlock(&files->lock);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

struct source_identity open_files_identity(struct open_files *files, uint32_t number)
{
    pthread_mutex_lock(&files->lock);
    struct source_identity identity = files->slots[number].identity;
    pthread_mutex_unlock(&files->lock);
    return identity;
}

bool open_files_were_direct(struct open_files *files, uint32_t number)
{
    pthread_mutex_lock(&files->lock);
    bool direct = files->slots[number].was_direct;
    pthread_mutex_unlock(&files->lock);
    return direct;
}

void open_files_cancel(struct open_files *files)
{
    pthread_mutex_lock(&files->lock);
    files->cancelled = true;
    pthread_cond_broadcast(&files->changed);
    pthread_mutex_unlock(&files->lock);
}

void open_files_free(struct open_files *files)
{
    if (files == NULL)
        return;
    for (struct open_file *file = files->oldest, *next; file != NULL; file = next) {
        next = file->newer; /* nothing is pinned: all are idle */
        close_file(file);
    }
    for (uint32_t i = 0; i < files->checkpoint->file_count; i++)
        forget_names(&files->slots[i]);
    pthread_mutex_destroy(&files->lock);
    pthread_cond_destroy(&files->changed);
    lazy_array_free(files->slots, files->room, sizeof *files->slots);
    free(files);
}
