/* SPDX-License-Identifier: MIT */
#include "verify/hash_files.h"

#include "base/error.h"
#include "base/workers.h"
#include "verify/file_hasher.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES ((size_t)1 << 20)
/* The kernel is asked for this much before it is needed: many requests in flight for one file. */
#define AHEAD_BYTES (UINT64_C(32) << 20)

struct hash_run {
    const struct unshard_checkpoint *checkpoint;
    struct hash_request **order; /* largest file first */
    uint32_t count;
    unshard_progress progress;
    void *context;
    pthread_mutex_t lock; /* of everything below */
    uint32_t next;
    uint64_t done, total;
    const char *current;
};

/* ---- one file ----------------------------------------------------------------------------------
 */

static int check_status(const struct source_file *file, int fd, struct unshard_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_set(error, "read-error", errno, "%s: cannot stat: %s", file->path,
                         strerrordesc_np(errno));
    int64_t mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    if ((uint64_t)status.st_ino == file->inode && (uint64_t)status.st_size == file->size &&
        mtime_ns == file->mtime_ns)
        return 0;
    return error_set(error, "changed", ESTALE, "%s: changed while it was read: run it again",
                     file->path);
}

static int open_file(const struct unshard_checkpoint *checkpoint, uint32_t number,
                     struct unshard_error *error)
{
    const struct source_file *file = &checkpoint->files[number];
    int fd = checkpoint_open_file(checkpoint, number, 0);
    if (fd < 0)
        return error_set(error, fd == -ENOENT ? "missing" : "read-error", -fd,
                         "%s: cannot open: %s", file->path, strerrordesc_np(-fd));
    int result = check_status(file, fd, error);
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

int hash_check_unchanged(const struct unshard_checkpoint *checkpoint, uint32_t number,
                         struct unshard_error *error)
{
    int fd = open_file(checkpoint, number, error);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static void count_bytes(struct hash_run *run, const char *path, uint64_t bytes)
{
    pthread_mutex_lock(&run->lock);
    run->done += bytes;
    run->current = path;
    pthread_mutex_unlock(&run->lock);
}

/* Reads at most `length` bytes at `offset`. The bytes, or a negative errno with *error. */
static ssize_t read_part(const struct source_file *file, int fd, uint64_t offset,
                         unsigned char *buffer, size_t length, struct unshard_error *error)
{
    ssize_t got;
    do
        got = pread(fd, buffer, length, (off_t)offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return error_set_at(error, "read-error", errno, offset, "%s: read at %llu: %s", file->path,
                            (unsigned long long)offset, strerrordesc_np(errno));
    if (got == 0)
        return error_set_at(error, "truncated", EIO, offset,
                            "%s: truncated: it ends at %llu, its size was %llu", file->path,
                            (unsigned long long)offset, (unsigned long long)file->size);
    return got;
}

static int hash_open_file(struct hash_run *run, struct file_hasher *hasher,
                          const struct source_file *file, int fd, unsigned char *buffer)
{
    uint64_t asked = 0;
    for (uint64_t offset = 0; offset < file->size;) {
        uint64_t left = file->size - offset;
        /* In steps of half the distance, so that few calls keep the storage busy. */
        if (asked < file->size && asked < offset + AHEAD_BYTES / 2) {
            posix_fadvise(fd, (off_t)asked, (off_t)AHEAD_BYTES / 2, POSIX_FADV_WILLNEED);
            asked += AHEAD_BYTES / 2;
        }
        ssize_t got = read_part(file, fd, offset, buffer, left < READ_BYTES ? left : READ_BYTES,
                                &hasher->request->error);
        if (got < 0)
            return (int)got;
        file_hasher_update(hasher, buffer, (size_t)got);
        offset += (uint64_t)got;
        count_bytes(run, file->path, (uint64_t)got);
    }
    int result = check_status(file, fd, &hasher->request->error);
    if (result == 0)
        file_hasher_finish(hasher);
    return result;
}

static void hash_one(struct hash_run *run, struct hash_request *request, unsigned char *buffer)
{
    const struct source_file *file = &run->checkpoint->files[request->file];
    struct file_hasher hasher;
    int fd = open_file(run->checkpoint, request->file, &request->error);
    request->result = fd < 0 ? fd : 0;
    if (fd < 0)
        return;
    request->result = file_hasher_begin(&hasher, request, file->size) != 0
                          ? error_no_memory(&request->error)
                          : hash_open_file(run, &hasher, file, fd, buffer);
    file_hasher_free(&hasher);
    close(fd);
}

/* ---- all files ---------------------------------------------------------------------------------
 */

static struct hash_request *take_next(struct hash_run *run)
{
    pthread_mutex_lock(&run->lock);
    struct hash_request *next = run->next < run->count ? run->order[run->next++] : NULL;
    pthread_mutex_unlock(&run->lock);
    return next;
}

static void work(void *context)
{
    struct hash_run *run = context;
    struct hash_request *request;
    unsigned char *buffer = malloc(READ_BYTES);
    while (buffer != NULL && (request = take_next(run)) != NULL)
        hash_one(run, request, buffer);
    free(buffer);
}

static void tick(void *context)
{
    struct hash_run *run = context;
    pthread_mutex_lock(&run->lock);
    const char *current = run->current != NULL ? run->current : "";
    uint64_t done = run->done, total = run->total;
    pthread_mutex_unlock(&run->lock);
    if (run->progress != NULL)
        run->progress(run->context, current, done, total);
}

static int compare_sizes(const void *left, const void *right, void *context)
{
    const struct hash_request *a = *(struct hash_request *const *)left;
    const struct hash_request *b = *(struct hash_request *const *)right;
    const struct unshard_checkpoint *checkpoint = context;
    uint64_t a_size = checkpoint->files[a->file].size, b_size = checkpoint->files[b->file].size;
    if (a_size != b_size)
        return a_size > b_size ? -1 : 1;
    return (a->file > b->file) - (a->file < b->file);
}

int hash_files(const struct unshard_checkpoint *checkpoint, struct hash_request *requests,
               uint32_t count, unsigned jobs, unshard_progress progress, void *context)
{
    struct hash_run run = {
        .checkpoint = checkpoint, .count = count, .progress = progress, .context = context};
    run.order = calloc((size_t)count + 1, sizeof *run.order);
    if (run.order == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        run.order[i] = &requests[i];
        run.total += checkpoint->files[requests[i].file].size;
    }
    /* The context is only read. */
    qsort_r(run.order, count, sizeof(struct hash_request *), compare_sizes, (void *)checkpoint);
    pthread_mutex_init(&run.lock, NULL);
    jobs = jobs == 0 ? HASH_DEFAULT_JOBS : jobs;
    int result = workers_run(jobs < count ? jobs : count, work, tick, &run);
    if (result == 0 && run.next < count)
        result = -ENOMEM;
    pthread_mutex_destroy(&run.lock);
    free(run.order);
    return result;
}

void hash_requests_free(struct hash_request *requests, uint32_t count)
{
    for (uint32_t i = 0; requests != NULL && i < count; i++)
        free(requests[i].chunks);
    free(requests);
}
