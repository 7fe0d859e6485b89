/* SPDX-License-Identifier: MIT */
#include "store/source.h"

#include "base/error.h"
#include "base/lazy_array.h"
#include "base/read_fully.h"
#include "store/file_read.h"
#include "store/open_files.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source {
    const struct unshard_checkpoint *checkpoint;
    struct open_files *open;
    struct permissions *permissions; /* of each file, as polled; lazy */
    size_t room;                     /* of permissions */
};

static struct permissions permissions_seen(const struct source_file *file)
{
    return (struct permissions){file->uid, file->gid, file->mode};
}

int source_create(const struct unshard_checkpoint *checkpoint, struct source **out,
                  struct unshard_error *error)
{
    struct source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return error_no_memory(error);
    source->checkpoint = checkpoint;
    source->room = (size_t)checkpoint_file_room(checkpoint) + 1;
    source->permissions = lazy_array_new(source->room, sizeof *source->permissions);
    if (source->permissions == NULL ||
        open_files_create(checkpoint, open_files_limit(), &source->open) != 0) {
        lazy_array_free(source->permissions, source->room, sizeof *source->permissions);
        free(source);
        return error_no_memory(error);
    }
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        source->permissions[i] = permissions_seen(&checkpoint->files[i]);
    *out = source;
    return 0;
}

void source_free(struct source *source)
{
    if (source == NULL)
        return;
    open_files_free(source->open);
    lazy_array_free(source->permissions, source->room, sizeof *source->permissions);
    free(source);
}

void source_add(struct source *source, uint32_t number)
{
    source->permissions[number] = permissions_seen(&source->checkpoint->files[number]);
    open_files_add(source->open, number);
}

void source_remove(struct source *source, uint32_t number)
{
    open_files_remove(source->open, number);
}

void source_cancel(struct source *source)
{
    open_files_cancel(source->open);
}

void source_close_idle(struct source *source, uint64_t before_ns)
{
    open_files_close_idle(source->open, before_ns);
}

bool source_is_direct(const struct source *source, uint32_t file)
{
    return open_files_were_direct(source->open, file);
}

struct source_identity source_identity_of(const struct stat *status)
{
    return (struct source_identity){
        .device = status->st_dev,
        .inode = status->st_ino,
        .size = (uint64_t)status->st_size,
        .mtime_ns = (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec,
        .ctime_ns = (int64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec};
}

struct source_identity source_identity(const struct source *source, uint32_t file)
{
    return open_files_identity(source->open, file);
}

/* As source_poll, of one of its names; the first one's permissions count in any case. */
static int poll_name(struct source *source, uint32_t number, const char *path, bool first,
                     bool closely)
{
    struct stat status;
    int fd = path_policy_resolve(source->checkpoint, path, &status);
    if (fd < 0)
        return fd;
    close(fd);
    struct source_identity now = source_identity_of(&status), was = source_identity(source, number);
    int result = !source_same_content(&now, &was) || (closely && now.ctime_ns != was.ctime_ns);
    if (first || result == 0)
        source->permissions[number] =
            (struct permissions){status.st_uid, status.st_gid, status.st_mode};
    return result;
}

int source_poll(struct source *source, uint32_t number, bool closely)
{
    const char *path = open_files_name(source->open, number, 0);
    int result = poll_name(source, number, path, true, closely);
    for (uint32_t place = 1; result != 0; place++) {
        path = open_files_name(source->open, number, place);
        if (path == NULL)
            break;
        if (poll_name(source, number, path, false, closely) == 0) {
            open_files_prefer(source->open, number, place);
            result = 0;
        }
    }
    return result;
}

const char *source_path(struct source *source, uint32_t file)
{
    return open_files_name(source->open, file, 0);
}

void source_add_name(struct source *source, uint32_t file, const char *path)
{
    open_files_add_name(source->open, file, path);
}

struct permissions source_permissions(const struct source *source, uint32_t file)
{
    return source->permissions[file];
}

int source_follow(struct source *source)
{
    return checkpoint_place_follow(source->checkpoint);
}

int source_reopen(struct source *source, uint32_t number, struct unshard_error *error)
{
    return open_files_renew(source->open, number, error);
}

/* Takes the range from the page cache when all of it is there. */
static bool read_cached(struct open_file *file, uint64_t offset, void *buffer, size_t length)
{
    if (atomic_load_explicit(&file->no_nowait, memory_order_relaxed))
        return false;
    int got = file_read_if_cached(file->buffered, offset, buffer, length);
    if (got == -EOPNOTSUPP)
        atomic_store_explicit(&file->no_nowait, true, memory_order_relaxed);
    return got == 1;
}

/* Through the page cache; what was not cached before is dropped again, to keep memory for views. */
static ssize_t read_buffered(struct open_file *file, uint64_t offset, void *buffer, size_t length)
{
    ssize_t got = read_fully(file->buffered, offset, buffer, length);
    if (got > 0 && !atomic_load_explicit(&file->no_nowait, memory_order_relaxed))
        posix_fadvise(file->buffered, (off_t)offset, (off_t)got, POSIX_FADV_DONTNEED);
    return got;
}

/* Past the page cache, as far as that goes. Bytes, or a negative errno. */
static ssize_t read_storage(struct open_file *file, uint64_t offset, void *buffer, size_t length)
{
    ssize_t got =
        file->direct < 0 ? -EINVAL : file_read_direct(file->direct, offset, buffer, length);
    size_t have = got > 0 ? (size_t)got : 0;
    if (got != -EINVAL && (got < 0 || have == length))
        return got;
    /* No direct I/O, or it does not get on: byte by byte if need be. */
    got = read_buffered(file, offset + have, (char *)buffer + have, length - have);
    return got < 0 ? got : got + (ssize_t)have;
}

/* A read that begins behind the end does not tell where that is. */
static uint64_t end_of(const struct open_file *file, uint64_t stopped_at)
{
    struct stat status;
    bool known = fstat(file->buffered, &status) == 0 && (uint64_t)status.st_size < stopped_at;
    return known ? (uint64_t)status.st_size : stopped_at;
}

/* What a read of `length` bytes came to: `got` is pread-like. */
static int check_read(const struct open_file *file, const char *path, uint64_t offset,
                      size_t length, ssize_t got, struct unshard_error *error)
{
    if (got < 0)
        return error_set_at(error, "read-error", (int)-got, offset, "%s: read at %llu failed: %s",
                            path, (unsigned long long)offset, strerrordesc_np((int)-got));
    if ((size_t)got < length)
        return open_file_truncated(path, end_of(file, offset + (uint64_t)got), offset + length,
                                   error);
    return open_file_check(file, path, error);
}

int source_read(struct source *source, uint32_t number, uint64_t offset, void *buffer,
                size_t length, bool *cached, struct unshard_error *error)
{
    struct open_file *file;
    int result = open_files_pin(source->open, number, offset, &file, error);
    if (result != 0)
        return result;
    ssize_t got = (ssize_t)length;
    *cached = read_cached(file, offset, buffer, length);
    if (!*cached) {
        *cached = file->in_memory;
        got = read_storage(file, offset, buffer, length);
    }
    result = check_read(file, source->checkpoint->files[number].path, offset, length, got, error);
    open_files_unpin(source->open, file, offset + length);
    return result;
}

int source_read_cached(struct source *source, uint32_t number, uint64_t offset, void *buffer,
                       size_t length, struct unshard_error *error)
{
    struct open_file *file;
    int result = open_files_pin(source->open, number, offset, &file, error);
    if (result != 0)
        return result;
    ssize_t got = read_fully(file->buffered, offset, buffer, length);
    result = check_read(file, source->checkpoint->files[number].path, offset, length, got, error);
    open_files_unpin(source->open, file, offset + length);
    return result;
}

void source_advise(struct source *source, uint32_t number, uint64_t offset, uint64_t length)
{
    struct unshard_error ignored;
    struct open_file *file;
    if (open_files_pin(source->open, number, offset, &file, &ignored) != 0)
        return;
    posix_fadvise(file->buffered, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
    open_files_unpin(source->open, file, offset + length);
}
