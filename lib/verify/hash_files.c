/* SPDX-License-Identifier: MIT */
#include "verify/hash_files.h"

#include "base/error.h"
#include "base/workers.h"
#include "tree/path_policy.h"
#include "verify/block_stream.h"
#include "verify/file_hasher.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Processors hash this many large files at once; the other reads in flight are ahead in them. */
#define LEAST_HASHERS 2U

struct hash_run {
    const struct unshard_checkpoint *checkpoint;
    struct hash_request **order; /* largest file first */
    uint32_t count;              /* of those at hand */
    unsigned readers;            /* reads in flight for each file */
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
    if (source_file_is_too_large(file)) {
        *error = *file->error;
        return -EFBIG;
    }
    int fd = checkpoint_open_file(checkpoint, number, 0);
    if (fd < 0)
        return error_set(error, fd == -ENOENT ? "missing" : "read-error", -fd,
                         "%s: cannot open: %s", file->path, path_policy_reason(fd));
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

static int hash_stream(struct hash_run *run, struct file_hasher *hasher,
                       struct block_stream *stream, const char *path)
{
    const unsigned char *data;
    ssize_t got;
    while ((got = block_stream_next(stream, &data, &hasher->request->error)) > 0) {
        file_hasher_update(hasher, data, (size_t)got);
        count_bytes(run, path, (uint64_t)got);
    }
    return (int)got;
}

static int hash_open_file(struct hash_run *run, struct file_hasher *hasher,
                          const struct source_file *file, int fd)
{
    struct hash_request *request = hasher->request;
    struct block_stream *stream =
        block_stream_open(run->checkpoint, request->file, fd, run->readers);
    if (stream == NULL)
        return error_no_memory(&request->error);
    int result = hash_stream(run, hasher, stream, file->path);
    block_stream_close(stream);
    if (result == 0)
        result = check_status(file, fd, &request->error);
    if (result == 0 && file_hasher_finish(hasher) != 0)
        result = error_no_memory(&request->error);
    return result;
}

static void hash_one(struct hash_run *run, struct hash_request *request)
{
    const struct source_file *file = &run->checkpoint->files[request->file];
    struct file_hasher hasher;
    int fd = open_file(run->checkpoint, request->file, &request->error);
    request->result = fd < 0 ? fd : 0;
    if (fd < 0)
        return;
    request->result = file_hasher_begin(&hasher, request, file->size) != 0
                          ? error_no_memory(&request->error)
                          : hash_open_file(run, &hasher, file, fd);
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
    while ((request = take_next(run)) != NULL)
        hash_one(run, request);
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

/* The largest first; names of one file stand together. */
static int compare_requests(const void *left, const void *right, void *context)
{
    const struct hash_request *a = *(struct hash_request *const *)left;
    const struct hash_request *b = *(struct hash_request *const *)right;
    const struct unshard_checkpoint *checkpoint = context;
    const struct source_file *one = &checkpoint->files[a->file], *two = &checkpoint->files[b->file];
    if (one->size != two->size)
        return one->size > two->size ? -1 : 1;
    if (one->device != two->device)
        return one->device < two->device ? -1 : 1;
    if (one->inode != two->inode)
        return one->inode < two->inode ? -1 : 1;
    return (a->file > b->file) - (a->file < b->file);
}

/* ---- names of one file -------------------------------------------------------------------------
 * A blob of the hub's cache by its own name and in every revision, hard links: read once. */

static bool is_same_file(const struct unshard_checkpoint *checkpoint, const struct hash_request *a,
                         const struct hash_request *b)
{
    const struct source_file *one = &checkpoint->files[a->file], *two = &checkpoint->files[b->file];
    return one->device == two->device && one->inode == two->inode && one->size == two->size &&
           one->mtime_ns == two->mtime_ns && one->ctime_ns == two->ctime_ns &&
           (a->chunk_bytes == b->chunk_bytes || a->chunk_bytes == 0 || b->chunk_bytes == 0);
}

/* Puts the requests that are for files read already, by another name, behind the others, and asks
 * for what they want under that name. The number of the others. */
static uint32_t set_names_aside(struct hash_run *run, uint32_t count)
{
    struct hash_request *first = NULL;
    uint32_t kept = 0, aside = 0;
    struct hash_request **others = calloc((size_t)count + 1, sizeof *others);
    for (uint32_t i = 0; i < count; i++) {
        struct hash_request *request = run->order[i];
        if (others != NULL && first != NULL && is_same_file(run->checkpoint, first, request)) {
            request->read_as = first;
            first->algorithms |= request->algorithms;
            if (first->chunk_bytes == 0) {
                first->chunk_bytes = request->chunk_bytes;
                first->chunk_algorithm = request->chunk_algorithm;
                first->secret = request->secret;
            }
            others[aside++] = request;
        } else {
            run->order[kept++] = first = request;
        }
    }
    if (aside > 0)
        memcpy(run->order + kept, others, aside * sizeof *others);
    free(others);
    return kept;
}

static int copy_result(struct hash_request *request)
{
    const struct hash_request *from = request->read_as;
    memcpy(request->digests, from->digests, sizeof request->digests);
    if (request->chunk_bytes == 0)
        return 0;
    size_t size = digest_size(from->chunk_algorithm);
    request->chunk_bytes = from->chunk_bytes;
    request->chunk_algorithm = from->chunk_algorithm;
    request->chunks = calloc((size_t)from->chunk_count + 1, size);
    if (request->chunks == NULL)
        return error_no_memory(&request->error);
    memcpy(request->chunks, from->chunks, from->chunk_count * size);
    request->chunk_count = from->chunk_count;
    return 0;
}

/* The other names get what came of the first. What could not be read is tried under each, so that
 * the error names it. */
static void settle_names(struct hash_run *run, uint32_t kept, uint32_t count)
{
    for (uint32_t i = kept; i < count; i++) {
        struct hash_request *request = run->order[i];
        if (request->read_as->result == 0)
            request->result = copy_result(request);
        else
            hash_one(run, request);
    }
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Large files: as many at once as there are processors to hash them, each with its share of the
 * reads. Small ones: each read is a file. */
static int hash_in_order(struct hash_run *run, unsigned jobs, uint32_t large, uint32_t count)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned hashers = processors > (long)LEAST_HASHERS ? (unsigned)processors : LEAST_HASHERS;
    hashers = least(least(hashers, jobs), large);
    run->count = large;
    run->readers = hashers > 0 ? jobs / hashers : 0;
    int result = hashers > 0 ? workers_run(hashers, work, tick, run) : 0;
    run->count = count;
    if (result == 0)
        result = workers_run(least(jobs, count - large), work, tick, run);
    return result;
}

int hash_files(const struct unshard_checkpoint *checkpoint, struct hash_request *requests,
               uint32_t count, unsigned jobs, unshard_progress progress, void *context)
{
    struct hash_run run = {.checkpoint = checkpoint, .progress = progress, .context = context};
    uint32_t large = 0;
    run.order = calloc((size_t)count + 1, sizeof *run.order);
    if (run.order == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        run.order[i] = &requests[i];
    /* The context is only read. */
    qsort_r(run.order, count, sizeof(struct hash_request *), compare_requests, (void *)checkpoint);
    uint32_t kept = set_names_aside(&run, count);
    for (uint32_t i = 0; i < kept; i++) {
        uint64_t size = checkpoint->files[run.order[i]->file].size;
        run.total += size;
        large += size > BLOCK_BYTES;
    }
    pthread_mutex_init(&run.lock, NULL);
    int result = hash_in_order(&run, jobs == 0 ? HASH_DEFAULT_JOBS : jobs, large, kept);
    if (result == 0)
        settle_names(&run, kept, count);
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
