/* SPDX-License-Identifier: MIT */
#include "source/source.h"

#include "base/error.h"
#include "base/read_fully.h"
#include "checkpoint/path_policy.h"
#include "source/file_read.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Descriptors of one file, opened at the first read and kept: a shard that is deleted later can
 * still be read to its end. */
struct handle {
    pthread_mutex_t lock; /* for identity and for changing descriptors; never held across I/O */
    struct source_identity identity;
    atomic_int buffered;   /* -1: not open */
    atomic_int direct;     /* -1: not open, or not possible */
    atomic_bool no_nowait; /* RWF_NOWAIT is not supported */
    atomic_bool in_memory; /* of a file system that has no storage */
};

struct source {
    const struct unshard_checkpoint *checkpoint;
    struct handle *handles; /* one per source file */
};

int source_create(const struct unshard_checkpoint *checkpoint, struct source **out,
                  struct unshard_error *error)
{
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return error_no_memory(error);
    source->checkpoint = checkpoint;
    source->handles = calloc(checkpoint->file_count + 1U, sizeof *source->handles);
    if (source->handles == NULL) {
        free(source);
        return error_no_memory(error);
    }
    for (uint32_t i = 0; i < checkpoint->file_count; i++) {
        const struct source_file *file = &checkpoint->files[i];
        source->handles[i].identity =
            (struct source_identity){file->device, file->inode, file->size, file->mtime_ns};
        pthread_mutex_init(&source->handles[i].lock, NULL);
        atomic_init(&source->handles[i].buffered, -1);
        atomic_init(&source->handles[i].direct, -1);
    }
    *out = source;
    return 0;
}

void source_free(struct source *source)
{
    if (source == NULL)
        return;
    for (uint32_t i = 0; i < source->checkpoint->file_count; i++) {
        struct handle *handle = &source->handles[i];
        if (atomic_load(&handle->buffered) >= 0)
            close(atomic_load(&handle->buffered));
        if (atomic_load(&handle->direct) >= 0)
            close(atomic_load(&handle->direct));
        pthread_mutex_destroy(&handle->lock);
    }
    free(source->handles);
    free(source);
}

bool source_is_direct(const struct source *source, uint32_t file)
{
    return atomic_load(&source->handles[file].direct) >= 0;
}

static int fail_open(const struct source_file *file, int negative_errno,
                     struct unshard_error *error)
{
    int number = -negative_errno;
    if (number == ENOENT)
        return error_set(error, "missing", number, "%s: the file is gone", file->path);
    return error_set(error, "read-error", number, "%s: cannot open: %m", file->path);
}

static int fail_changed(const struct source_file *file, const char *what, uint64_t expected,
                        uint64_t actual, struct unshard_error *error)
{
    return error_set(error, "changed", ESTALE,
                     "%s: changed since it was mounted: %s was %llu and is %llu", file->path, what,
                     (unsigned long long)expected, (unsigned long long)actual);
}

static int fail_truncated(const struct source_file *file, uint64_t end, uint64_t needed,
                          struct unshard_error *error)
{
    return error_set_at(error, "truncated", EIO, end,
                        "%s: ends at byte %llu, %llu bytes are missing from there", file->path,
                        (unsigned long long)end, (unsigned long long)(needed - end));
}

static struct source_identity identity_of(const struct stat *status)
{
    return (struct source_identity){.device = status->st_dev,
                                    .inode = status->st_ino,
                                    .size = (uint64_t)status->st_size,
                                    .mtime_ns = (int64_t)status->st_mtim.tv_sec * 1000000000 +
                                                status->st_mtim.tv_nsec};
}

/* The open file is still what it was when it was opened. */
static int check_unchanged(const struct source_file *file, struct source_identity was, int fd,
                           struct unshard_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_set(error, "read-error", errno, "%s: cannot stat: %m", file->path);
    struct source_identity now = identity_of(&status);
    if (now.inode != was.inode)
        return fail_changed(file, "inode", was.inode, now.inode, error);
    if (now.size < was.size)
        return fail_truncated(file, now.size, was.size, error);
    if (now.size != was.size)
        return fail_changed(file, "size", was.size, now.size, error);
    if (now.mtime_ns != was.mtime_ns)
        return fail_changed(file, "mtime (ns)", (uint64_t)was.mtime_ns, (uint64_t)now.mtime_ns,
                            error);
    return 0;
}

struct source_identity source_identity(const struct source *source, uint32_t file)
{
    struct handle *handle = &source->handles[file];
    pthread_mutex_lock(&handle->lock);
    struct source_identity identity = handle->identity;
    pthread_mutex_unlock(&handle->lock);
    return identity;
}

/* What is opened of a file. */
struct opened {
    int buffered, direct; /* -1: not possible, or taken over */
    bool in_memory;
};

static int open_both(const struct source *source, uint32_t number, struct opened *out,
                     struct unshard_error *error)
{
    struct statfs status;
    int fd = checkpoint_open_file(source->checkpoint, number, 0);
    if (fd < 0) {
        errno = -fd;
        return fail_open(&source->checkpoint->files[number], fd, error);
    }
    int direct = checkpoint_open_file(source->checkpoint, number, O_DIRECT);
    *out =
        (struct opened){.buffered = fd,
                        .direct = direct < 0 ? -1 : direct,
                        .in_memory = fstatfs(fd, &status) == 0 && (status.f_type == TMPFS_MAGIC ||
                                                                   status.f_type == RAMFS_MAGIC)};
    return 0;
}

static void close_opened(const struct opened *opened)
{
    if (opened->buffered >= 0)
        close(opened->buffered);
    if (opened->direct >= 0)
        close(opened->direct);
}

/* Several threads may open the file at once: the first one's descriptors stay. */
static int open_handle(struct source *source, uint32_t number, struct unshard_error *error)
{
    struct handle *handle = &source->handles[number];
    struct opened opened = {-1, -1, false};
    if (atomic_load_explicit(&handle->buffered, memory_order_acquire) >= 0)
        return 0;
    int result = open_both(source, number, &opened, error);
    if (result != 0)
        return result;
    result = check_unchanged(&source->checkpoint->files[number], source_identity(source, number),
                             opened.buffered, error);
    pthread_mutex_lock(&handle->lock);
    if (atomic_load(&handle->buffered) >= 0) {
        result = 0;
    } else if (result == 0) {
        atomic_store(&handle->in_memory, opened.in_memory);
        atomic_store(&handle->direct, opened.direct);
        atomic_store_explicit(&handle->buffered, opened.buffered, memory_order_release);
        opened.buffered = opened.direct = -1;
    }
    pthread_mutex_unlock(&handle->lock);
    close_opened(&opened);
    return result;
}

/* Takes the range from the page cache when all of it is there. */
static bool read_cached(struct handle *handle, uint64_t offset, void *buffer, size_t length)
{
    if (atomic_load_explicit(&handle->no_nowait, memory_order_relaxed))
        return false;
    int got = file_read_if_cached(atomic_load(&handle->buffered), offset, buffer, length);
    if (got == -EOPNOTSUPP)
        atomic_store_explicit(&handle->no_nowait, true, memory_order_relaxed);
    return got == 1;
}

/* Through the page cache; what was not cached before is dropped again, to keep memory for views. */
static ssize_t read_buffered(struct handle *handle, uint64_t offset, void *buffer, size_t length)
{
    int fd = atomic_load(&handle->buffered);
    ssize_t got = read_fully(fd, offset, buffer, length);
    if (got > 0 && !atomic_load_explicit(&handle->no_nowait, memory_order_relaxed))
        posix_fadvise(fd, (off_t)offset, (off_t)got, POSIX_FADV_DONTNEED);
    return got;
}

int source_poll(struct source *source, uint32_t number)
{
    struct stat status;
    int fd =
        path_policy_resolve(source->checkpoint, source->checkpoint->files[number].path, &status);
    if (fd < 0)
        return fd;
    close(fd);
    struct source_identity now = identity_of(&status), was = source_identity(source, number);
    return now.device != was.device || now.inode != was.inode || now.size != was.size ||
           now.mtime_ns != was.mtime_ns;
}

/* Puts what `from` refers to behind the descriptor that reads use, and closes `from`. */
static void replace_descriptor(atomic_int *descriptor, int from)
{
    int fd = atomic_load(descriptor);
    if (fd < 0) {
        atomic_store(descriptor, from);
        return;
    }
    dup3(from, fd, O_CLOEXEC);
    close(from);
}

int source_reopen(struct source *source, uint32_t number, struct unshard_error *error)
{
    struct handle *handle = &source->handles[number];
    struct opened opened = {-1, -1, false};
    struct stat status;
    int result = open_both(source, number, &opened, error);
    if (result != 0)
        return result;
    if (fstat(opened.buffered, &status) != 0) {
        result = error_set(error, "read-error", errno, "%s: cannot stat: %m",
                           source->checkpoint->files[number].path);
        close_opened(&opened);
        return result;
    }
    pthread_mutex_lock(&handle->lock);
    handle->identity = identity_of(&status);
    atomic_store(&handle->in_memory, opened.in_memory);
    if (opened.direct >= 0)
        replace_descriptor(&handle->direct, opened.direct);
    else
        atomic_store(&handle->direct, -1); /* the old one stays open: somebody may be reading it */
    replace_descriptor(&handle->buffered, opened.buffered);
    pthread_mutex_unlock(&handle->lock);
    return 0;
}

/* What a read of `length` bytes came to: `got` is pread-like. */
static int check_read(const struct source_file *file, struct source_identity was, int fd,
                      uint64_t offset, size_t length, ssize_t got, struct unshard_error *error)
{
    if (got < 0) {
        errno = (int)-got;
        return error_set_at(error, "read-error", (int)-got, offset, "%s: read at %llu failed: %m",
                            file->path, (unsigned long long)offset);
    }
    if ((size_t)got < length) {
        uint64_t end = offset + (uint64_t)got;
        return fail_truncated(file, end, offset + length, error);
    }
    return check_unchanged(file, was, fd, error);
}

int source_read(struct source *source, uint32_t number, uint64_t offset, void *buffer,
                size_t length, bool *cached, struct unshard_error *error)
{
    struct handle *handle = &source->handles[number];
    int result = open_handle(source, number, error);
    if (result != 0)
        return result;
    ssize_t got = (ssize_t)length;
    *cached = read_cached(handle, offset, buffer, length);
    if (!*cached) {
        *cached = atomic_load_explicit(&handle->in_memory, memory_order_relaxed);
        int direct = atomic_load(&handle->direct);
        got = direct < 0 ? -EINVAL : file_read_direct(direct, offset, buffer, length);
        size_t have = got > 0 ? (size_t)got : 0;
        if (got == -EINVAL || (got >= 0 && have < length)) {
            /* No direct I/O, or it does not get on: byte by byte if need be. */
            got = read_buffered(handle, offset + have, (char *)buffer + have, length - have);
            got = got < 0 ? got : got + (ssize_t)have;
        }
    }
    return check_read(&source->checkpoint->files[number], source_identity(source, number),
                      atomic_load(&handle->buffered), offset, length, got, error);
}

int source_read_cached(struct source *source, uint32_t number, uint64_t offset, void *buffer,
                       size_t length, struct unshard_error *error)
{
    int result = open_handle(source, number, error);
    if (result != 0)
        return result;
    int fd = atomic_load(&source->handles[number].buffered);
    ssize_t got = read_fully(fd, offset, buffer, length);
    return check_read(&source->checkpoint->files[number], source_identity(source, number), fd,
                      offset, length, got, error);
}

void source_advise(struct source *source, uint32_t number, uint64_t offset, uint64_t length)
{
    struct unshard_error ignored;
    if (open_handle(source, number, &ignored) == 0)
        posix_fadvise(atomic_load(&source->handles[number].buffered), (off_t)offset, (off_t)length,
                      POSIX_FADV_WILLNEED);
}
